"""Tests of paired differences: Student's t, and the exact sign-flip test that assumes no normal law."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr

from ddpmkit.statistics.rounding import ROUNDING

EXACT_UP_TO = 40  # pairs; each half then has 2^20 sums


def paired_p(differences: Sequence[float], rounding: float = 0.0) -> float | None:
    """Return the two-sided p of the paired t test that the mean difference is zero; None below two pairs.

    Differences that are all the same, to rounding, show no spread to test against: their p is the least that the exact
    sign-flip test can give, 2 / 2^n, instead of the t test's zero. ``rounding`` as for :func:`without_spread`.
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2:
        return None
    spread = d.std(ddof=1)
    if without_spread(differences, rounding):
        return 1.0 if not d.any() else 2.0 / 2 ** len(d)
    return float(2 * stdtr(len(d) - 1, -abs(d.mean() / spread * math.sqrt(len(d)))))


def without_spread(differences: Sequence[float], rounding: float = 0.0) -> bool:
    """Whether two or more differences are all the same but for rounding: values on a coarse grid often are.

    Args:
        differences: One a pair.
        rounding: What floating point may have added to each; large where small differences of large numbers are taken.
    """
    d = np.asarray(differences, dtype=np.float64)
    return len(d) > 1 and float(d.std(ddof=1)) <= max(1e-9 * float(np.abs(d).max()), rounding)


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Return the exact two-sided p of the sign-flip test: the share of the 2^n sign patterns with a sum as far out.

    It asks only that a difference is as likely to be -d as d when there is no effect (Fisher 1935, The Design of
    Experiments, section 21). It can't be smaller than :func:`sign_flip_floor`. None below two pairs, and above 40.
    """
    d = np.asarray(differences, dtype=np.float64)
    if not 2 <= len(d) <= EXACT_UP_TO:
        return None
    slack = 1e-12 * float(np.abs(d).sum())  # sums that are equal but for rounding count as equal
    observed = abs(float(d.sum()))
    if observed <= slack:
        return 1.0
    # Every sum is one of the first half plus one of the second: sort one half and count, instead of listing 2^n.
    first, second = _sums(d[: len(d) // 2]), np.sort(_sums(d[len(d) // 2 :]))
    beyond = len(first) * len(second) - int(np.searchsorted(second, observed - slack - first).sum())
    return float(min(1.0, 2 * beyond / 2 ** len(d)))


def sign_flip_floor(n: int) -> float | None:
    """Return 2 / 2^n, the smallest p that the sign-flip test of n pairs can give; None where there is no test."""
    return 2 / 2**n if 2 <= n <= EXACT_UP_TO else None


def correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return Pearson's correlation over the common seeds; None below three, or where a side moves by rounding alone."""
    if len(a) < 3 or any(np.ptp(v) <= ROUNDING * np.abs(v).max() for v in (a, b)):
        return None
    x = np.asarray(a, dtype=np.float64) - np.mean(a)
    y = np.asarray(b, dtype=np.float64) - np.mean(b)
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return max(-1.0, min(1.0, float(x @ y) / scale)) if scale > 0 else None


def _sums(d: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the sums of +-d_1 +-d_2 ... over all sign patterns, shape (2^n,)."""
    out = np.zeros(1)
    for value in d:
        out = np.concatenate([out + value, out - value])
    return out
