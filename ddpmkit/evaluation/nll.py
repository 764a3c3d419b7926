"""The variational bound of a data set in bits/dim, with a Monte-Carlo standard error, from few network passes.

total = [ L_T + sum_{t=2..T} L_{t-1} + L_0 ] / (d ln 2), Ho et al. 2020, eq. 5. L_T is closed form. L_0 sees every
image, twice. The middle sum is drawn by importance: a pilot on held-out images estimates E L_t^2, steps come from
p_t ~ sqrt(E L_t^2) by systematic sampling, in R = 16 independently shifted replicates whose spread is the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.gaussian import Coefficients, q_sample
from ddpmkit.diffusion.likelihood import (
    bits_per_dim,
    decoder_nll,
    learned_middle,
    middle_constant,
    middle_factor,
    prior_kl,
)
from ddpmkit.diffusion.tables import Array, Tables
from ddpmkit.errors import Diverged, Interrupted
from ddpmkit.randomness import normal, permutation, stream_key, uniform

REPLICATES = 16
DECODER_DRAWS = 2
PILOT_STEPS, PILOT_IMAGES = 32, 16
UNCLIPPED_SHARE = 0.25  # of the proposal; the clipped bound is the one that studies report
UNIFORM_SHARE = 0.01  # of the proposal, so that no step is ever out of reach


@dataclass(frozen=True)
class Bound:
    """The bound in bits/dim: its total, its Monte-Carlo standard error given the images, and its terms."""

    total: float
    standard_error: float
    prior: float
    middle: float
    decoder: float


@dataclass(frozen=True, eq=False)
class Estimate:
    """What :func:`estimate` returns.

    Attributes:
        clipped: the bound with x0hat clipped to [-1, 1]; what studies report.
        unclipped: the bound of the network as it is, from the same passes.
        evaluations: network evaluations, in images.
        draws: the raw material: image, step and squared x0-errors of every draw, to be stored.
    """

    clipped: Bound
    unclipped: Bound
    evaluations: int
    draws: dict[str, np.ndarray[Any, Any]]


@torch.inference_mode()
def estimate(
    predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]],
    tables: Tables,
    log_sigma2: Array | None,
    decoder_log_variance: float,
    *,
    images: Tensor,
    pilot: Tensor,
    levels: int,
    evaluations: int,
    seed: int | str,
    micro_batch: int,
    on_progress: Callable[[float], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Estimate:
    """Estimate the bound of ``images``.

    Args:
        predict: ``predict(xt, t)`` with t int64 (B,), giving x0hat, not clipped, and a learned log sigma^2 or None.
        tables: The full chain.
        log_sigma2: Log reverse variances, (T,); entry 0 is not used. None: the network gives them, the decoder's too.
        decoder_log_variance: Log-variance of p(x_0 | x_1).
        images: Float32 pixels (N, C, H, W) in [-1, 1], exactly on the grey levels.
        pilot: Other images, for the proposal alone.
        levels: Number K of grey levels.
        evaluations: Budget for the middle sum, in network evaluations; rounded up to the replicates.
        seed: Keys of all noise and shifts.
        micro_batch: Images per network pass, always; the last pass is padded.
        on_progress: Told the finished fraction.
        should_stop: Asked before every pass.

    Raises:
        Diverged: when the network gives a value that is not finite; the step and the image are named.
        Interrupted: when asked to stop.
    """
    count, dims, device = len(images), images[0].numel(), images.device
    c = Coefficients.of(tables, device)
    per_replicate = -(-evaluations // REPLICATES)
    grid = np.unique(np.geomspace(1, tables.T - 1, PILOT_STEPS).round().astype(np.int64))
    sizes = (len(grid) * PILOT_IMAGES, DECODER_DRAWS * count, REPLICATES * per_replicate)
    passes, done = sum(-(-s // micro_batch) for s in sizes), 0

    def run(
        pool: Tensor,
        stream: str,
        image: Tensor,
        t: Tensor,
        reduce: Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor],
    ) -> dict[str, Array]:
        """Return one float64 number a row, ``reduce(x0, x0hat, log_sigma2, t)``, for x0hat clipped and as it is."""
        nonlocal done
        key = stream_key(seed, stream)
        out: dict[str, list[Tensor]] = {"clipped": [], "unclipped": []}
        for first in range(0, len(t), micro_batch):
            if should_stop():
                raise Interrupted("stopped during the likelihood")
            rows = torch.arange(first, first + micro_batch, device=device).clamp(max=len(t) - 1)
            x0, steps = pool[image[rows]], t[rows]
            xt = q_sample(c, x0, steps, normal(key, rows, tuple(x0.shape[1:])))
            keep = min(micro_batch, len(t) - first)
            out_x0, out_variance = predict(xt, steps)
            x0, steps, hat = x0[:keep].cpu().double(), steps[:keep].cpu(), out_x0[:keep].cpu().double()
            given = None if out_variance is None else out_variance[:keep].cpu().double()
            bad = ~torch.isfinite(hat).flatten(1).all(1)
            if bool(bad.any()):
                row = int(bad.nonzero()[0])
                raise Diverged(f"x0hat is not finite at step {int(steps[row])} of image {int(image[rows][row])}")
            out["clipped"].append(reduce(x0, hat.clamp(-1, 1), given, steps))
            out["unclipped"].append(reduce(x0, hat, given, steps))
            done += 1
            on_progress(done / passes)
        return {name: torch.cat(parts).numpy() for name, parts in out.items()}

    if log_sigma2 is None:  # the network's own variance: the term itself is taken, not the error it is made of
        factor, constant = np.ones(tables.T), np.zeros(tables.T)
    else:
        factor, constant = middle_factor(tables, log_sigma2), middle_constant(tables, log_sigma2)

    def middle(x0: Tensor, hat: Tensor, given: Tensor | None, t: Tensor) -> Tensor:
        if given is None:
            return (x0 - hat).square().flatten(1).sum(1)
        return learned_middle(tables, x0, hat, given, t)

    def first_step(x0: Tensor, hat: Tensor, given: Tensor | None, _: Tensor) -> Tensor:
        sigma = math.exp(decoder_log_variance / 2) if given is None else torch.exp(given / 2)
        return decoder_nll(x0, hat, sigma, levels).flatten(1).sum(1)

    # The proposal, from images that are not in the estimate.
    steps = torch.tensor(np.repeat(grid, PILOT_IMAGES), device=device)
    which = torch.arange(len(steps), device=device) % len(pilot)
    pilot_errors = run(pilot, "nll-pilot", which, steps, middle)
    shapes = {
        name: _proposal(grid, e.reshape(len(grid), PILOT_IMAGES), factor, dims * constant)
        for name, e in pilot_errors.items()
    }
    # The unclipped bound can sit in steps that hardly count when clipped; both are to be reached.
    proposal = (1 - UNCLIPPED_SHARE) * shapes["clipped"] + UNCLIPPED_SHARE * shapes["unclipped"]

    # L_0, every image.
    image = torch.arange(count, device=device).repeat(DECODER_DRAWS)
    decoder = run(images, "nll-decoder", image, torch.zeros_like(image), first_step)

    # The middle sum.
    t, image = _systematic(proposal, count, per_replicate, seed, device)
    errors_by = run(images, "nll", image, t, middle)

    prior = float(prior_kl(tables, images.cpu()).mean())
    steps_np = t.cpu().numpy()
    bounds = {
        name: _bound(
            prior, decoder[name], (factor[steps_np] * e + dims * constant[steps_np]) / proposal[steps_np], count, dims
        )
        for name, e in errors_by.items()
    }
    draws: dict[str, np.ndarray[Any, Any]] = {
        "image": image.cpu().numpy().astype(np.int32),
        "t": steps_np.astype(np.int32),
        "proposal": proposal,
        "error_clipped": errors_by["clipped"],
        "error_unclipped": errors_by["unclipped"],
        "decoder_clipped": decoder["clipped"],
        "decoder_unclipped": decoder["unclipped"],
    }
    return Estimate(bounds["clipped"], bounds["unclipped"], sum(sizes), draws)


def _proposal(grid: np.ndarray[Any, Any], errors: Array, factor: Array, constant: Array) -> Array:
    """Return p_t ~ sqrt(E L_t^2), (T,) with p_0 = 0, from the pilot's errors (len(grid), images)."""
    total = np.arange(len(factor))
    root = np.sqrt(np.mean(np.square(factor[grid, None] * errors + constant[grid, None]), axis=1))
    tiny = np.finfo(np.float64).tiny
    # Interpolated along log t as log L_t: between two pilots the loss runs like a power of t.
    shape = np.exp(np.interp(np.log(total[1:]), np.log(grid), np.log(np.maximum(root, tiny))))
    p = np.concatenate([[0.0], shape / shape.sum() * (1 - UNIFORM_SHARE) + UNIFORM_SHARE / (len(factor) - 1)])
    return np.asarray(p / p.sum())


def _systematic(
    proposal: Array, images: int, size: int, seed: int | str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return steps and images of all replicates, each int64 (R * size,).

    Within a replicate the steps are the quantiles (j + u) / size of the proposal, and the images run through a keyed
    permutation, so that each pair is drawn in proportion to p_t / N.
    """
    cdf = np.cumsum(proposal)
    cdf /= cdf[-1]
    shifts = uniform(stream_key(seed, "nll-shift"), torch.arange(REPLICATES)).double().numpy()
    steps, which = [], []
    for r, shift in enumerate(shifts):
        quantiles = (np.arange(size) + shift) / size
        steps.append(np.searchsorted(cdf, quantiles, side="right").clip(1, len(proposal) - 1))
        laps = [permutation(seed, images, 1_000_000 + r * 10_000 + lap) for lap in range(-(-size // images))]
        which.append(torch.cat(laps)[:size])
    return torch.from_numpy(np.concatenate(steps)).to(device), torch.cat(which).to(device)


def _bound(prior: float, decoder: Array, terms: Array, count: int, dims: int) -> Bound:
    """Put the terms together, in bits/dim."""
    replicates = terms.reshape(REPLICATES, -1).mean(1)
    draws = decoder.reshape(DECODER_DRAWS, count)
    # The draws of one image differ by noise alone: half their squared difference estimates its variance.
    decoder_variance = np.mean(np.var(draws, axis=0, ddof=1)) / (DECODER_DRAWS * count)
    se = math.sqrt(np.var(replicates, ddof=1) / REPLICATES + decoder_variance)
    parts = [bits_per_dim(v, dims) for v in (prior, float(replicates.mean()), float(draws.mean()))]
    return Bound(sum(parts), bits_per_dim(se, dims), *parts)
