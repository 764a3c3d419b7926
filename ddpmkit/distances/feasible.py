"""Whether a metric can be taken at all: asked before a training by the plan, and before a feature pass by the panel."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddpmkit.distances import copies, neighbours, two_sample

Levels = np.ndarray[Any, np.dtype[np.uint8]]

NEIGHBOURS = ("precision", "recall", "density", "coverage")
K = 5  # neighbours, where nobody says how many


def why_not(
    metric: str, n: int, n_reference: int, *, k: int = K, train: Levels | None = None, heldout: Levels | None = None
) -> str | None:
    """Say why a metric of N samples against a reference can't be taken; None when it can.

    Only what is known before the samples are: numbers, and for the copy check the two sets that it rests on.

    Args:
        metric: Name of the metric.
        n: Number of samples.
        n_reference: Number of reference images; 0 for stored statistics, whatever is behind them.
        k: Neighbours of precision, recall, density and coverage.
        train: Training images of the copy check, uint8 (A, C, H, W).
        heldout: Its held-out images, uint8 (B, C, H, W).
    """
    if n < 2:
        return f"there is {n} sample, and a distance needs at least 2"
    if n_reference == 1:
        return "there is 1 reference image, and a distance needs at least 2"
    if metric in NEIGHBOURS:
        return neighbours.too_few(n, n_reference, k)
    if metric == "c2st":
        return two_sample.too_few(n, n_reference)
    if metric == "copy" and train is not None and heldout is not None:
        return copies.too_few(n, len(train), len(heldout)) or copies.no_yardstick(train, heldout)
    return None
