"""What floating point leaves of numbers that cancel: no number of its own."""

from __future__ import annotations

import sys

ROUNDING = 8 * sys.float_info.epsilon  # of the largest number: what floating point may add to a difference


def cleared(value: float, rounding: float) -> float:
    """Return a number, or 0 where it is no larger than what rounding may have left of others that cancel."""
    return 0.0 if abs(value) <= rounding else value
