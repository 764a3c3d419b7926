"""Single numbers in a sentence, with so many significant digits and no power of ten."""

from __future__ import annotations

import math
from decimal import Decimal


def two_digits(value: float) -> str:
    """Write two significant digits: 0.021, 1.8, 130."""
    return significant(value, 2)


def four_digits(value: float) -> str:
    """Write four significant digits, zeros at the end included: 10.06, 313.5, 0.01000."""
    if not math.isfinite(value):
        return f"{value:g}"
    if value == 0:
        return "0.000"
    exponent = int(f"{value:.3e}".partition("e")[2])  # 9.9996 is 10.00
    return f"{round(value, 3 - exponent):.{max(0, 3 - exponent)}f}"


def significant(value: float, digits: int) -> str:
    """Write a number with so many significant digits, without zeros at its end, whatever its size."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    text = f"{round(value, digits - 1 - exponent):.{max(0, digits - 1 - exponent)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def fixed(value: float, digits: int, sign: str = "") -> str:
    """Write a number with so many decimals, rounded to tens where they are below zero, and no negative zero."""
    if digits < 0 and math.isfinite(value):  # a Decimal, for a float above 2^53 would be written to its last bit
        return f"{Decimal(repr(round(value, digits) or 0.0)):{sign}.0f}"
    return f"{value if round(value, digits) else 0.0:{sign}.{max(0, digits)}f}"
