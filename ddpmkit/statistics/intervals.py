"""The interval of a mean over seeds (Student 1908)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ddpmkit.statistics.rounding import cleared

ALPHA = 0.05


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its Student-t interval; one seed has none."""

    mean: float
    low: float | None
    high: float | None
    n: int


def t_interval(values: Sequence[float], level: float = 1 - ALPHA, rounding: float = 0.0) -> Interval:
    """Return mean -+ t_{n-1} s / sqrt(n). One value gives a mean and no interval.

    Args:
        values: One a seed.
        level: Confidence of the interval.
        rounding: What floating point may have added to each value. Differences that cancel leave as much of a mean that
            is zero; the mean, and an end, of no more than that is zero.

    Raises:
        ValueError: when there is no value.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        raise ValueError("an interval needs at least one value")
    mean = cleared(float(x.mean()), rounding)
    if len(x) == 1:
        return Interval(mean, None, None, 1)
    half = float(stdtrit(len(x) - 1, 0.5 + level / 2) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(mean, cleared(mean - half, rounding), cleared(mean + half, rounding), len(x))
