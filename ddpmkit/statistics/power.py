"""What a number of seeds can show, from the noncentral t distribution; to be asked before a run."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import nctdtrinc, stdtrit

from ddpmkit.statistics.anytime import half_width
from ddpmkit.statistics.intervals import ALPHA

POWER = 0.8
MOST = 1000  # seeds; more than anyone trains


def smallest_visible(
    seeds: int,
    sd: float,
    *,
    correlation: float = 0.0,
    contrasts: int = 1,
    alpha: float = ALPHA,
    power: float = POWER,
    anytime: bool = False,
) -> float | None:
    """Return the smallest true gap that a paired t test finds with this power; None for one seed.

    gap = nc sd_d / sqrt(n), sd_d = sd sqrt(2 (1 - correlation)), where nc solves P(T_{n-1, nc} > t_{n-1, 1 - a/2}) =
    power at Holm's first level a = alpha / contrasts (Cohen 1988, section 2.3; Faul et al. 2007). The far tail is left
    out: at these powers it adds less than 1e-6.

    Args:
        seeds: Train seeds n, the same for both cells.
        sd: Prior standard deviation of one cell over train seeds, in the metric's unit.
        correlation: Prior correlation of two cells over seeds; 0 is cautious.
        contrasts: Number of contrasts in the family.
        alpha: Family-wise error rate.
        power: Chance to find the gap, between 0.5 and 1.
        anytime: Whether it is the e-value after all these seeds that is to find it, at alpha / contrasts, as in a study
            that grows; None then also for seeds so few that no gap is found.

    Raises:
        ValueError: for a negative sd, no seed or no contrast, a correlation outside [-1, 1], or a power or alpha
            outside its range.
    """
    if seeds < 1 or contrasts < 1 or not (0 <= sd < math.inf) or not -1 <= correlation <= 1:
        raise ValueError("seeds and contrasts are at least 1, sd is not negative, a correlation is within -1 and 1")
    if not (0.5 <= power < 1 and 0 < alpha < 1):
        raise ValueError("power is at least 0.5 and below 1, alpha is between 0 and 1")
    if seeds == 1:
        return None
    apart, level = sd * math.sqrt(2 * (1 - correlation)), alpha / contrasts
    if not anytime:
        return _gap(seeds, apart, level, power)
    critical = math.sqrt(seeds) * half_width(seeds, level)  # of t
    return _noncentrality(seeds, critical, 1 - power) * apart / math.sqrt(seeds) if critical < math.inf else None


def seeds_needed(gap: float, sd: float, *, level: float = ALPHA, power: float = POWER) -> int | None:
    """Return the fewest train seeds with which a true gap is found; None above 1000.

    Args:
        gap: The true mean difference.
        sd: Standard deviation of the paired differences over train seeds.
        level: Two-sided level of the test, such as Holm's.
        power: Chance to find it.
    """
    return _fewest(lambda n: _gap(n, sd, level, power) <= abs(gap)) if gap else None


def seeds_for_margin(margin: float, sd: float, *, level: float = ALPHA, power: float = POWER) -> int | None:
    """Return the seeds with which two equal cells are shown to differ by less than the margin; None above 1000.

    Each one-sided test gets power (1 + power) / 2, so that both succeed with at least this power.
    """
    each = 1 - (1 + power) / 2
    return _fewest(lambda n: _noncentrality(n, stdtrit(n - 1, 1 - level), each) * sd / math.sqrt(n) <= margin)


def _gap(n: int, sd: float, level: float, power: float) -> float:
    return _noncentrality(n, stdtrit(n - 1, 1 - level / 2), 1 - power) * sd / math.sqrt(n)


def _noncentrality(n: int, critical: float, miss: float) -> float:
    """Return nc with P(T_{n-1, nc} <= critical) = miss."""
    return float(nctdtrinc(n - 1, miss, critical))


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """Return the smallest n >= 2 for which a growing condition holds."""
    if not enough(MOST):
        return None
    low, high = 1, MOST  # one pair is never enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
