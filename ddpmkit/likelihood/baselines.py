"""What a reader holds the numbers against: the NLL of models that have learnt next to nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Levels = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]


def uniform_bits(levels: int) -> float:
    """Bits/dim of a uniform distribution over K grey levels: log2 K."""
    return math.log2(levels)


def categorical_bits(train: Levels, test: Levels, levels: int) -> float:
    """Bits/dim of the test images under one categorical distribution a pixel, fitted to the training images.

    p_i(k) = (n_ik + 1/2) / (N + K/2) (Krichevsky & Trofimov 1981). Shapes (N, C, H, W), levels 0 .. K-1.
    """
    flat, seen = (images.reshape(len(images), math.prod(images.shape[1:])) for images in (train, test))
    counts = np.stack([(flat == k).sum(0) for k in range(levels)])
    log_p = np.log2((counts + 0.5) / (len(flat) + levels / 2))
    return float(-np.mean(log_p[seen, np.arange(seen.shape[1])]))


def categorical_bits_given_class(
    train: Levels, test: Levels, levels: int, *, labels: Labels, test_labels: Labels
) -> float:
    """Bits/dim of the test images given their classes, under one categorical distribution a pixel and class.

    p_i(k | y) = (n_yik + 1/2) / (N_y + K/2) (Krichevsky & Trofimov 1981), from the training images of class y alone; of
    a class that has none it is uniform. Shapes (N, C, H, W) and (N,), levels 0 .. K-1.
    """
    bits = sum(
        int(count) * categorical_bits(train[labels == y], test[test_labels == y], levels)
        for y, count in zip(*np.unique(test_labels, return_counts=True), strict=True)
    )
    return float(bits) / len(test)
