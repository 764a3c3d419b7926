"""Which steps are drawn how often: p_t from a small pilot, and systematic draws of (step, image) pairs from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.tables_for import Array
from ddpmkit.errors import DdpmkitError
from ddpmkit.randomness import permutation, stream_key, uniform

REPLICATES = 16
PILOT_STEPS, PILOT_IMAGES = 32, 16
UNCLIPPED_SHARE = 0.25  # of the proposal; the clipped bound is the one that studies report
UNIFORM_SHARE = 0.01  # of the proposal, so that no step is ever out of reach

Ints = np.ndarray[Any, np.dtype[np.int64]]


def pilot_grid(T: int, count: int = PILOT_STEPS) -> Ints:
    """Return at most ``count`` steps from 1 to T-1: three quarters along log t, the rest along log (T - t).

    Most of a bound sits at small t; but schedules that end in next to no signal have a course of their own there.

    Raises:
        DdpmkitError: for a chain of one step, which has no steps to draw from.
    """
    if T < 2:
        raise DdpmkitError("a chain of one step has no steps between decoder and prior", "full=True; it takes no time")
    start = np.geomspace(1, T - 1, count - count // 4).round().astype(np.int64)
    end = T - np.geomspace(1, T - 1, count // 4).round().astype(np.int64)
    return np.unique(np.concatenate([start, end]))


def shape(t: Ints, losses: Array, residuals: Array, T: int) -> Array:
    """Return p_t, (T,) with p_0 = 0, from pilot draws of the loss L_t, (n,), and of what its controls leave of it.

    Systematic draws integrate the course of the mean over t almost exactly, so that p_t ~ sd(residual) would be best;
    sqrt(E L_t^2) is safe where the pilot saw too little. Half of each. Both are interpolated along log t as logarithms:
    between two pilot steps the loss runs like a power of t.
    """
    grid, every = np.unique(t), np.arange(1, T)
    parts = []
    for values in (losses, residuals):
        root = np.array([np.sqrt(np.mean(values[t == g] ** 2)) for g in grid])
        root = np.maximum(root, np.finfo(np.float64).tiny)
        p = np.exp(np.interp(np.log(every), np.log(grid), np.log(root)))
        parts.append(p / p.sum())
    mixed = np.concatenate([[0.0], (parts[0] + parts[1]) / 2])
    return np.asarray(mixed / mixed.sum())


def mixture(clipped: list[Array], unclipped: list[Array]) -> Array:
    """Mix the shapes of all references: three quarters clipped, one unclipped, and a hundredth of it all uniform.

    The unclipped bound can sit in steps that hardly count when clipped; both are to be reached.
    """
    p = (1 - UNCLIPPED_SHARE) * np.mean(clipped, axis=0) + UNCLIPPED_SHARE * np.mean(unclipped, axis=0)
    flat = np.full(len(p), 1 / (len(p) - 1))
    flat[0] = 0.0
    p = (1 - UNIFORM_SHARE) * p + UNIFORM_SHARE * flat
    return np.asarray(p / p.sum())


def systematic(
    proposal: Array, images: int, size: int, seed: int | str, stream: str, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return steps and images of all replicates, each int64 (R * size,), the replicates one after another.

    Within a replicate the steps are the quantiles (j + u) / size of the proposal, and every image appears equally
    often or once more, in an order of its own, so that each pair is drawn in proportion to p_t / N.
    """
    cdf = np.cumsum(proposal)
    cdf /= cdf[-1]
    replicate = torch.arange(REPLICATES)
    shifts = uniform(stream_key(seed, f"{stream}-shift"), replicate).double().numpy()
    quantiles = (np.arange(size) + shifts[:, None]) / size
    steps = np.searchsorted(cdf, quantiles, side="right").clip(1, len(proposal) - 1)
    # The last lap may be cut short, so it is an order of its own; then all are shuffled, or late laps would meet late
    # steps alone.
    laps, epoch = -(-size // images), 2 * replicate[:, None]
    cut = permutation(f"{seed}/{stream}", images, epoch)
    pool = torch.cat([torch.arange(images).repeat(REPLICATES, laps - 1), cut], dim=1)[:, :size]
    which = pool.gather(1, permutation(f"{seed}/{stream}", size, epoch + 1))
    return torch.from_numpy(steps.ravel()).to(device), which.flatten().to(device)
