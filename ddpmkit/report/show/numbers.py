"""How numbers are written: two significant digits of the half-width, value and interval with the same decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ddpmkit.statistics import Interval
from ddpmkit.text.numbers import fixed

WITHOUT = 4  # significant digits of a number that has no interval
SPARE = 1  # digits more or fewer than its own two with which a number may follow its column


def decimals(intervals: Sequence[Interval]) -> int:
    """Return how many decimals a column means, below zero for tens and hundreds.

    Two significant digits of the median half-width; where no number has an interval, four of the smallest number.
    """
    halves = sorted(h for i in intervals if (h := _half(i)) > 0)
    if halves:
        return _own(halves[len(halves) // 2], 2)
    values = [abs(i.mean) for i in intervals if i.mean and math.isfinite(i.mean)]
    return max(0, _own(min(values), WITHOUT)) if values else WITHOUT - 1


def fitted(i: Interval, column: int) -> int:
    """Return the decimals of one number in a column.

    Those of the column, as long as they show one to three significant digits of its own half-width: no interval is cut
    to nothing by a wide neighbour, and none is drawn out by a narrow one. An interval that excludes zero is not written
    with an end at zero.
    """
    half = _half(i)
    if half > 0 and i.low is not None and i.high is not None:
        own = _own(half, 2)
        digits = min(max(column, own - SPARE), own + SPARE)
        if i.low * i.high > 0:
            while digits < 300 and any(round(e, digits) == 0 for e in (i.low, i.high)):
                digits += 1
        return digits
    return fitted_value(i.mean, column)


def fitted_value(value: float, column: int) -> int:
    """Return the decimals of a number without an interval: the column's, and enough for two significant digits."""
    if not value or not math.isfinite(value):
        return max(0, column)
    return max(0, min(max(column, _own(abs(value), 2)), _own(abs(value), WITHOUT + SPARE)))


def column(intervals: Iterable[Interval], sign: str = "") -> list[str]:
    """Write the numbers of one column, each ``mean [low, high]``."""
    rows = list(intervals)
    digits = decimals(rows)
    return [interval_text(i, fitted(i, digits), sign) for i in rows]


def interval_text(i: Interval | None, digits: int = 3, sign: str = "") -> str:
    """Write ``mean [low, high]``, the mean alone for one seed, a dash for none."""
    if i is None:
        return "-"
    mean = fixed(i.mean, digits, sign)
    if i.low is None or i.high is None:
        return mean
    return f"{mean} [{fixed(i.low, digits, sign)}, {fixed(i.high, digits, sign)}]"


def p_text(p: float) -> str:
    """Write a p-value."""
    text = f"{p:.3f}"
    return "<.001" if p < 0.001 else "1" if text == "1.000" else text.lstrip("0")


def _half(i: Interval) -> float:
    """The half-width; 0 where there is none, or where it is next to nothing beside the number itself."""
    if i.low is None or i.high is None:
        return 0.0
    half = (i.high - i.low) / 2
    return half if math.isfinite(half) and half > 1e-15 * max(abs(i.low), abs(i.high)) else 0.0


def _own(value: float, significant: int) -> int:
    """Return the decimals with which a positive number has so many significant digits, once it is rounded."""
    exponent = int(f"{value:.{significant - 1}e}".partition("e")[2])  # 9.96 is 10 with two digits
    return significant - 1 - exponent
