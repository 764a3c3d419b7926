"""Whether a metric can be taken at all: asked before a training by the plan, and before a feature pass by the panel."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Metric

Levels = np.ndarray[Any, np.dtype[np.uint8]]


def why_not(
    metric: Metric, n: int, n_reference: int, *, train: Levels | None = None, heldout: Levels | None = None
) -> str | None:
    """Say why a metric of N samples against a reference can't be taken; None when it can.

    Only what is known before the samples are: numbers, and the sets that a copy check rests on.

    Args:
        metric: The metric.
        n: Number of samples.
        n_reference: Number of reference images; 0 for stored statistics, whatever is behind them.
        train: Training images, uint8 (A, C, H, W).
        heldout: Held-out images, uint8 (B, C, H, W).

    Raises:
        DdpmkitError: when the metric answers with something else than a line of text.
    """
    if n < 2:
        return f"there is {n} sample, and a distance needs at least 2"
    if n_reference == 1:
        return "there is 1 reference image, and a distance needs at least 2"
    return contract.why_not(metric, n, n_reference, train, heldout)
