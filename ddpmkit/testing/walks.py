"""Walks through a Gaussian world, whose denoiser and whose reverse variance are known exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ddpmkit.diffusion.reverse_variance import step_sigmas
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Denoised, Sampler
from ddpmkit.plugin.registry import Registry
from ddpmkit.testing.chains import chain

if TYPE_CHECKING:
    from torch import Tensor

    from ddpmkit.plugin.tables import Array, Tables

LENGTHS = ((1000, 50), (50, 10), (2, 2))  # of the chain, and of the walk
MEAN, DEVIATION = 0.2, 0.2  # of the world's pixels
IMAGES = 256


@dataclass(eq=False)
class Walked:
    """What a walk gave, and what it asked for on its way.

    Attributes:
        samples: what it drew.
        given: every tensor that it was shown, beside a copy.
        asked: each step that it asked the denoiser about, with the deviation of what it asked about.
        noises: the number of each noise that it asked for, after how many questions to the denoiser.
    """

    samples: Tensor
    given: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)
    asked: list[tuple[int, float]] = field(default_factory=list)
    noises: list[tuple[int, int]] = field(default_factory=list)


def walks(sampler: Sampler, schedule: str = "cosine") -> list[Tables]:
    """Return the chains of all walks that a sampler does not refuse by itself.

    Raises:
        DdpmkitError: when a walk breaks the contract, or none is left.
    """
    found, refusals = [], []
    for T, count in LENGTHS:
        try:
            sampler.timesteps(T, count)  # to tell its own refusal from ours
        except DdpmkitError as err:
            refusals.append(err)
            continue
        found.append(chain(schedule, T).strided(contract.timesteps(sampler, T, count)))
    if not found:
        raise refusals[0]
    return found


def short(sampler: Sampler, schedule: str = "cosine") -> Tables:
    """Return the chain of a walk that is short, and has steps in between where the sampler takes such a one."""
    found = walks(sampler, schedule)
    return found[1] if len(found) > 1 else found[0]


def spread(tables: Tables, t: int, deviation: float = DEVIATION) -> float:
    """Return the deviation of x_t in the world, (m_t^2 s^2 + S_t^2)^(1/2)."""
    return float((tables.signal[t] ** 2 * deviation**2 + tables.noise2[t]) ** 0.5)


def walked(
    sampler: Sampler,
    tables: Tables,
    *,
    images: int = IMAGES,
    sigma: str | None = "beta-tilde",
    deviation: float = DEVIATION,
    shown: Callable[[str, int, Tensor], Tensor] = lambda what, k, tensor: tensor,
    pixelwise: bool = False,
) -> Walked:
    """Walk once.

    Args:
        sampler: Who walks.
        tables: The chain of the walk.
        images: How many are drawn.
        sigma: The reverse variance; None for the one that is exact in this world.
        deviation: The deviation of the world's pixels.
        shown: Changes what is shown under a name: ``noise`` number k, and the deviation ``sigma`` of step k.
        pixelwise: Whether that deviation is a tensor like x0, as a learned one is, even if it is the same everywhere.
    """
    import torch

    sigmas = _exact(sampler, tables, deviation) if sigma is None else _named(sampler, tables, sigma)
    out = Walked(torch.empty(0))

    def show(what: str, tensor: Tensor) -> Tensor:
        out.given.append((what, tensor, tensor.clone()))
        return tensor

    def denoise(x: Tensor, t: int) -> Denoised:
        out.asked.append((t, float(x.std())))
        gain = tables.signal[t] * deviation**2 / spread(tables, t, deviation) ** 2
        x0 = MEAN + float(gain) * (x - float(tables.signal[t]) * MEAN)
        plain = float(sigmas[t])
        pixels = shown("sigma", t, torch.full_like(x, plain))
        same = bool((pixels == pixels.flatten()[:1]).all()) and float(pixels.flatten()[0]) == torch.tensor(plain)
        same = same and not pixelwise
        return Denoised(show(f"x0 of step {t}", x0), plain if same else pixels)

    def noise(k: int) -> Tensor:
        out.noises.append((k, len(out.asked)))
        draws = torch.Generator().manual_seed(k)
        return show(f"noise({k})", shown("noise", k, torch.randn((IMAGES, 1, 2, 2), generator=draws)[:images].clone()))

    with torch.no_grad():
        out.samples = contract.walk(sampler, denoise, tables, noise).clone()
    return out


def _named(sampler: Sampler, tables: Tables, sigma: str) -> Array:
    found = step_sigmas(sampler, Registry(installed=False).build("sigma", sigma), tables, tables, 256, None)
    if found is None:
        raise TypeError(f"sigma '{sigma}' is learned, and there is no network")
    return found


def _exact(sampler: Sampler, tables: Tables, deviation: float) -> Array:
    """lambda_t^2 + kappa_t^2 Var(x_0 | x_t): with it the chain back has the marginals of the one forward."""
    variance, factor = contract.kernel(sampler, tables)
    x0 = deviation**2 * tables.noise2 / (tables.signal**2 * deviation**2 + tables.noise2)
    return np.asarray(np.sqrt(variance + factor**2 * x0))
