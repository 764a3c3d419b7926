"""The t test for a number of seeds that was not fixed beforehand: an e-value, and its confidence sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpmkit.statistics.paired import without_spread
from ddpmkit.statistics.rounding import cleared

G = 1.0  # prior variance of the effect size; chosen by benchmarks/anytime.py, before any study was looked at
LARGEST = 700.0  # of log e: a float holds no more
MOST = 1000  # seeds; more than anyone trains


@dataclass(frozen=True)
class Anytime:
    """What may be said of a contrast however often it was looked at.

    Attributes:
        e: the e-value against "no difference"; None below two seeds.
        needed: the e-value that settles it, m / alpha for the m contrasts of its family.
        low: lower end of the confidence sequence at level 1 - 1 / needed; None while it is the whole line, as with the
            first few seeds, and where the differences have no spread.
        high: its upper end.
        verdict: as that of a contrast; better or worse once e reaches ``needed``, which is when the sequence excludes
            zero; no gap larger than the margin once the sequence lies within it.
        stands: whether this is the verdict of the contrast, as in a study that has grown.
    """

    e: float | None
    needed: float
    low: float | None
    high: float | None
    verdict: str
    stands: bool = False


def e_value(differences: Sequence[float], rounding: float = 0.0, *, g: float = G) -> float | None:
    """Return the e-value of the paired t test that the mean difference is zero; None below two pairs.

    e = (1 + n g)^(-1/2) [(1 + t^2 / (n - 1)) / (1 + t^2 / ((n - 1) (1 + n g)))]^(n/2), t = sqrt(n) mean / s. It is the
    ratio of two densities of the differences: mean / sigma drawn from N(0, g) against zero, sigma under the right Haar
    measure d sigma / sigma in both. Without a difference it is a martingale of mean 1 in n, so that it reaches 1 / a
    at any n with probability at most a, by Ville's inequality (Wang & Ramdas 2023, arXiv 2310.03722, theorem 4.9, who
    write 1 / c^2 for g; for groups in general Perez-Ortiz et al. 2024, Annals of Statistics 52:1410-1432).

    Differences that are all the same, to rounding, show no spread to test against: their e is at most that of the exact
    sign-flip test, 2^(n-1).

    Args:
        differences: One a pair, in any order.
        rounding: As for :func:`ddpmkit.statistics.paired.without_spread`.
        g: Prior variance of the effect size.

    Raises:
        ValueError: when g is not positive and finite.
    """
    _check(g)
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    if n < 2:
        return None
    if not d.any():
        return 1 / math.sqrt(1 + n * g)
    if without_spread(differences, rounding):
        return math.exp(min((n - 1) / 2 * math.log1p(n * g), (n - 1) * math.log(2), LARGEST))
    t = np.asarray(math.sqrt(n) * d.mean() / d.std(ddof=1))
    return math.exp(min(float(log_e(t, n, g=g)), LARGEST))


def log_e(t: NDArray[np.float64], n: int, *, g: float = G) -> NDArray[np.float64]:
    """Return the logarithms of the e-values of t statistics of n pairs each; :func:`e_value` has the formula."""
    h, u = 1 + n * g, np.square(t) / (n - 1)
    return n / 2 * (np.log1p(u) - np.log1p(u / h)) - math.log(h) / 2


def confidence_sequence(
    differences: Sequence[float], level: float, rounding: float = 0.0, *, g: float = G
) -> tuple[float, float] | None:
    """Return the means that the e-value has not refuted: all mu for which e(differences - mu) < 1 / level.

    It holds the true mean at every n at once with probability at least 1 - level. None while it is the whole line, and
    where the differences have no spread; references as for :func:`e_value`.

    Args:
        differences: One a pair, in any order.
        level: Chance that the true mean is ever left out, such as alpha / m.
        rounding: As for :func:`e_value`.
        g: Prior variance of the effect size.

    Raises:
        ValueError: when g is not positive and finite, or the level is not between 0 and 1.
    """
    _check(g)
    if not 0 < level < 1:
        raise ValueError("a level is between 0 and 1")
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    if n < 2 or without_spread(differences, rounding):
        return None
    half = float(d.std(ddof=1)) * half_width(n, level, g=g)
    mean = cleared(float(d.mean()), rounding)
    return (cleared(mean - half, rounding), cleared(mean + half, rounding)) if half < math.inf else None


def half_width(n: int, level: float, *, g: float = G) -> float:
    """Return half the width of a confidence sequence after n pairs, in standard deviations of the differences.

    sqrt((n - 1) u / n), u = (k - 1) / (1 - k / (1 + n g)), k = (sqrt(1 + n g) / level)^(2/n), which is where
    :func:`log_e` is -log level; infinite while k >= 1 + n g, for then no t statistic is large enough.
    """
    h = 1 + n * g
    k = (math.sqrt(h) / level) ** (2 / n)
    return math.sqrt((n - 1) / n * (k - 1) / (1 - k / h)) if k < h else math.inf


def seeds_to_end(gap: float, sd: float, level: float, *, g: float = G) -> int | None:
    """Return the fewest pairs after which half the width of a confidence sequence is at most a gap; None above 1000.

    Args:
        gap: How wide half of it may be.
        sd: Standard deviation of the paired differences.
        level: As for :func:`confidence_sequence`.
        g: Prior variance of the effect size.
    """
    return next((n for n in range(2, MOST + 1) if half_width(n, level, g=g) * sd <= gap), None) if gap > 0 else None


def _check(g: float) -> None:
    if not 0 < g < math.inf:
        raise ValueError("the prior variance of the effect size is a positive number")
