"""Worlds with known answers: pixels of few levels whose probabilities are written down, drawn by their inverse CDF."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ddpmkit import SPLITS, Images

Array = np.ndarray[Any, np.dtype[np.float64]]


def gaussian_levels(mean: float, deviation: float, levels: int) -> Array:
    """Return the probability of each level, (K,), of a normal pixel in [-1, 1] rounded to the nearest of K levels.

    The ends take their tails: P(k) = Phi((e_{k+1} - m) / s) - Phi((e_k - m) / s) with edges half way between levels.
    """
    edges = [-math.inf, *(-1 + (2 * k + 1) / (levels - 1) for k in range(levels - 1)), math.inf]
    below = [0.5 * math.erfc(-(e - mean) / (deviation * math.sqrt(2))) for e in edges]
    return np.diff(np.array(below))


def entropy_bits(p: Array) -> float:
    """Return -sum p log2 p."""
    kept = p[p > 0]
    return float(-(kept * np.log2(kept)).sum())


def drawn(
    tables: Array, weights: Array, *, size: int, counts: tuple[int, int, int], seed: int, labelled: bool
) -> Images:
    """Draw images (N, 1, size, size) of independent pixels from the table of each image's component.

    Args:
        tables: Probabilities of levels, (components, K).
        weights: Probability of each component, (components,).
        size: Height and width.
        counts: Training, validation and test images.
        seed: Key of all draws.
        labelled: Whether the component is the label.
    """
    edges, levels = np.cumsum(tables, axis=1), tables.shape[1]
    found, labels = {}, {}
    for index, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        # A generator a split, filled image by image: fewer images are the first of more, and move no other split.
        u = np.random.default_rng([seed, index]).random((count, 1 + size * size))
        component = np.minimum((u[:, :1] >= np.cumsum(weights)).sum(1), len(weights) - 1)
        # The last edge is 1 but for rounding, and a level beyond it there is not.
        level = [
            np.minimum(np.searchsorted(edges[c], row, side="right"), levels - 1)
            for c, row in zip(component, u[:, 1:], strict=True)
        ]
        found[split] = np.array(level, dtype=np.uint8).reshape(count, 1, size, size)
        labels[split] = component.astype(np.int64)
    return Images(found["train"], found["validation"], found["test"], levels, labels if labelled else {})
