"""The sliced Wasserstein distance along directions that never change."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddpmkit.distances.frechet import checked_pair
from ddpmkit.distances.measurement import Measurement

Array = np.ndarray[Any, np.dtype[np.float64]]
DIRECTIONS, SEED = 256, 0


def sliced_wasserstein(x: Array, y: Array, *, directions: int = DIRECTIONS, seed: int = SEED) -> Measurement:
    """The mean of W2^2 between samples (N, D) and a reference (M, D) projected on fixed directions.

    SW^2 = mean_theta integral_0^1 (F_x^-1(u) - F_y^-1(u))^2 du over unit vectors theta drawn once from ``seed``, the
    integral exact for unequal N and M (Rabin et al. 2012; Bonneel et al. 2015, sec. 2). For N(m, I) against N(0, I) it
    is |m|^2 / D on average over directions. The influence of a sample is the Kantorovich potential at it.

    Args:
        x: Features of the samples, (N, D).
        y: Features of the reference, (M, D).
        directions: Number of directions.
        seed: Seed of the directions.

    Raises:
        DdpmkitError: for fewer than two samples, different D, or features that are not finite.
    """
    x, y = checked_pair(x, y)
    theta = np.random.default_rng(seed).standard_normal((directions, x.shape[1]))
    theta /= np.linalg.norm(theta, axis=1, keepdims=True)
    n, m = len(x), len(y)
    # The pieces on which both quantile functions are constant: cuts at i/n and j/m, compared as integers.
    cuts = np.union1d(np.arange(1, n + 1, dtype=np.int64) * m, np.arange(1, m + 1, dtype=np.int64) * n)
    width = np.diff(cuts, prepend=0)
    i, j = (cuts - 1) // m, (cuts - 1) // n
    share = width / (n * m)
    starts = np.flatnonzero(np.diff(i, prepend=-1))
    total, effect = 0.0, np.zeros(n)
    for direction in theta:
        px, py = x @ direction, np.sort(y @ direction)
        order = np.argsort(px, kind="stable")
        px = px[order]
        total += float(share @ np.square(px[i] - py[j]))
        target = np.add.reduceat(share * py[j], starts) * n  # what the mass at each sample is moved to, on average
        slope = 2 * (px - target)
        potential = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(px))])
        effect[order] += potential - potential.mean()
    return Measurement(total / directions, effect / directions, {"directions": directions, "seed": seed})
