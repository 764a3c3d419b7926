"""The kernel distance as the complete U-statistic over all pairs, in float64, with its own standard error."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddpmkit.distances.frechet import checked_pair
from ddpmkit.distances.measurement import Measurement, standard_error

Array = np.ndarray[Any, np.dtype[np.float64]]
CHUNK = 2048
VARIES = 1e-10  # of a feature's mean, and of the largest deviation: what is below is the rounding of a constant


def kernel_distance(x: Array, y: Array, *, standardise: bool = True) -> Measurement:
    """KID between samples (N, D) and a reference (M, D), unbiased, and so sometimes negative.

    MMD^2_u = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j), k(a, b) = (a.b / D + 1)^3
    (Binkowski et al. 2018, arXiv 1801.01401, sec. 4; Gretton et al. 2012, eq. 3). All pairs are used once, no random
    subsets. The cubic kernel depends on the scale, so features are standardised by the reference's mean and standard
    deviation (1 where a feature of the reference does not vary, but for rounding). The standard error is the
    first-order (Hajek) one, the reference held fixed; ``details["se_both"]`` has the reference's error too. Where the
    two distributions are equal the limit is not normal.

    Args:
        x: Features of the samples, (N, D).
        y: Features of the reference, (M, D).
        standardise: False for the published scale of the features.

    Raises:
        DdpmkitError: for fewer than two samples, different D, or features that are not finite.
    """
    x, y = checked_pair(x, y)
    n, m = len(x), len(y)
    if standardise:
        mean, sd = y.mean(0), y.std(0)
        sd = np.where(sd > VARIES * np.maximum(np.abs(mean), sd.max()), sd, 1.0)
        x, y = (x - mean) / sd, (y - mean) / sd
    xx, yy = (_row_sums(v, v) - _diagonal(v) for v in (x, y))
    xy, yx = _row_sums(x, y), _row_sums(y, x)
    value = xx.sum() / (n * (n - 1)) + yy.sum() / (m * (m - 1)) - 2 * xy.sum() / (n * m)
    of_x, of_y = (2 * (own / (k - 1) - other / j) for own, k, other, j in ((xx, n, xy, m), (yy, m, yx, n)))
    both = float(np.hypot(standard_error(of_x), standard_error(of_y)))
    return Measurement(float(value), of_x - of_x.mean(), {"se_both": both, "kernel": "(a.b/D + 1)^3"})


def _row_sums(a: Array, b: Array) -> Array:
    """sum_j k(a_i, b_j), a chunk of rows at a time."""
    sums = []
    for first in range(0, len(a), CHUNK):
        gram = a[first : first + CHUNK] @ b.T
        gram /= a.shape[1]
        gram += 1.0
        sums.append((gram * gram * gram).sum(1))
    return np.concatenate(sums)


def _diagonal(a: Array) -> Array:
    return np.asarray((np.square(a).sum(1) / a.shape[1] + 1.0) ** 3)
