"""What a reader holds the numbers against: the NLL of models that have learnt next to nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Levels = np.ndarray[Any, np.dtype[np.uint8]]


def uniform_bits(levels: int) -> float:
    """Bits/dim of a uniform distribution over K grey levels: log2 K."""
    return math.log2(levels)


def categorical_bits(train: Levels, test: Levels, levels: int) -> float:
    """Bits/dim of the test images under one categorical distribution a pixel, fitted to the training images.

    p_i(k) = (n_ik + 1/2) / (N + K/2) (Krichevsky & Trofimov 1981). Shapes (N, C, H, W), levels 0 .. K-1.
    """
    flat, seen = train.reshape(len(train), -1), test.reshape(len(test), -1)
    counts = np.stack([(flat == k).sum(0) for k in range(levels)])
    log_p = np.log2((counts + 0.5) / (len(flat) + levels / 2))
    return float(-np.mean(log_p[seen, np.arange(seen.shape[1])]))
