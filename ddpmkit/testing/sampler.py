"""What is asked of a sampler: it walks from noise to a Gaussian world, whose denoiser is known exactly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ddpmkit.diffusion.reverse_variance import step_sigmas
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Denoised, Sampler
from ddpmkit.plugin.registry import Registry
from ddpmkit.testing.chains import chain
from ddpmkit.testing.check import fail, named

if TYPE_CHECKING:
    from torch import Tensor

    from ddpmkit.plugin.tables import Tables

LENGTHS = ((1000, 50), (50, 10), (2, 2))  # of the chain, and of the walk
MEAN, DEVIATION = 0.2, 0.2  # of the world's pixels
IMAGES = 256
CLOSE = 1e-4


def timesteps(sampler: Sampler) -> None:
    """It visits as many steps as were asked for, rising, and the last one is T-1."""
    _walks(sampler)


def kernel(sampler: Sampler) -> None:
    """It says what noise its steps have: variances from 0, the same when asked again."""
    for tables in _walks(sampler):
        contract.kernel(sampler, tables)


def walk(sampler: Sampler) -> None:
    """It gives finite images of the shape of the noise, at every length."""
    import torch

    for tables in _walks(sampler):
        if not bool(torch.isfinite(_walk(sampler, tables).samples).all()):
            fail(
                f"sampler '{sampler.name}' gives images that are not finite in {tables.T} steps", "look at its factors"
            )


def leaves_its_input(sampler: Sampler) -> None:
    """It does not write into the noise, nor into what the denoiser gave it."""
    import torch

    for tables in _walks(sampler):
        for what, given, kept in _walk(sampler, tables).given:
            if not torch.equal(given, kept):
                fail(
                    f"sampler '{sampler.name}' mutates its input: it writes into {what}",
                    "use x = a * x + b instead of x *= a, and clamp instead of clamp_, on what it is given",
                )


def repeats_itself(sampler: Sampler) -> None:
    """A second walk over the same noise gives the same images: nothing is kept from the first."""
    import torch

    tables = _walks(sampler)[0]
    if not torch.equal(_walk(sampler, tables).samples, _walk(sampler, tables).samples):
        fail(
            f"sampler '{sampler.name}' gives other images of the same noise",
            "draw no numbers but those of noise(k), and begin every walk afresh",
        )


def no_leak_across_the_batch(sampler: Sampler) -> None:
    """What it draws for one image does not depend on the others of the batch."""
    tables = _walks(sampler)[0]
    whole, part = _walk(sampler, tables).samples, _walk(sampler, tables, images=3).samples
    if bool(((whole[:3] - part).abs() > CLOSE).any()):
        fail(f"sampler '{sampler.name}' leaks across the batch", "take no mean, norm or quantile over the batch")


def says_whether_it_uses_sigma(sampler: Sampler) -> None:
    """Another choice of sigma changes what it draws if, and only if, it says uses_sigma = True."""
    import torch

    tables = _walks(sampler)[0]
    same = torch.equal(_walk(sampler, tables).samples, _walk(sampler, tables, sigma="beta").samples)
    if same and sampler.uses_sigma:
        fail(
            f"sampler '{sampler.name}' says that it uses sigma, and draws the same for another one",
            "say uses_sigma = False and give kernel(tables), or add denoised.sigma times noise",
        )
    if not same and not sampler.uses_sigma:
        fail(f"sampler '{sampler.name}' says uses_sigma = False, and uses it", "leave out uses_sigma = False")


def reaches_the_data(sampler: Sampler) -> None:
    """Given the exact denoiser of a Gaussian world, it draws images with that world's mean and deviation."""
    samples = _walk(sampler, _walks(sampler)[0]).samples
    mean, deviation = float(samples.mean()), float(samples.std())
    if abs(mean - MEAN) > 0.1 or not 0.5 * DEVIATION < deviation < 1.5 * DEVIATION:
        fail(
            f"sampler '{sampler.name}' draws pixels of mean {mean:.3g} and deviation {deviation:.3g} where the data "
            f"have {MEAN} and {DEVIATION}",
            "check its factors against the paper, and that it walks from the last step to the first",
        )


@dataclass(eq=False)
class Walked:
    """What a walk gave, and every tensor that it was shown, beside a copy."""

    samples: Tensor
    given: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)


def _walks(sampler: Sampler) -> list[Tables]:
    found, refusals = [], []
    for T, count in LENGTHS:
        try:
            sampler.timesteps(T, count)  # to tell its own refusal from ours
        except DdpmkitError as err:
            refusals.append(err)
            continue
        found.append(chain("cosine", T).strided(contract.timesteps(sampler, T, count)))
    if not found:
        raise refusals[0]
    return found


def _walk(sampler: Sampler, tables: Tables, *, images: int = IMAGES, sigma: str = "beta-tilde") -> Walked:
    import torch

    given: list[tuple[str, Tensor, Tensor]] = []
    variance = tables.signal**2 * DEVIATION**2 + tables.noise2
    chosen = Registry(installed=False).build("sigma", sigma)
    sigmas = step_sigmas(sampler, chosen, tables, tables, 256, None)
    if sigmas is None:
        raise TypeError(f"sigma '{sigma}' is learned, and there is no network")

    def show(what: str, tensor: Tensor) -> Tensor:
        given.append((what, tensor, tensor.clone()))
        return tensor

    def denoise(x: Tensor, t: int) -> Denoised:
        gain = tables.signal[t] * DEVIATION**2 / variance[t]
        x0 = MEAN + float(gain) * (x - float(tables.signal[t]) * MEAN)
        return Denoised(show(f"x0 of step {t}", x0), float(sigmas[t]))

    def noise(k: int) -> Tensor:
        draws = torch.Generator().manual_seed(k)
        return show(f"noise({k})", torch.randn((IMAGES, 1, 2, 2), generator=draws)[:images].clone())

    with torch.no_grad():
        samples = contract.walk(sampler, denoise, tables, noise)
    return Walked(samples.clone(), given)


CHECKS = named(
    timesteps,
    kernel,
    walk,
    leaves_its_input,
    repeats_itself,
    no_leak_across_the_batch,
    says_whether_it_uses_sigma,
    reaches_the_data,
)
