"""When numbers span so much that only a logarithm shows them all, and an axis that is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# The largest over the smallest value beyond which ..
LOG = 8.0  # .. a scale for curves is logarithmic,
MANY_TIMES = 20.0  # .. one that numbers are read from,
ONES = 100.0  # .. the marks of one are powers of ten alone.


def spans(values: Sequence[float], least: float = LOG) -> bool:
    """Return whether all are above zero, and the largest is that many times the smallest."""
    finite = [v for v in values if np.isfinite(v)]
    return bool(finite) and min(finite) > 0 and max(finite) > least * min(finite)


def logarithmic(axis: Any, which: str, values: Sequence[float]) -> None:
    """Make one axis, x or y, logarithmic, with marks at round numbers that are written out; fewer along a narrow x."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    getattr(axis, f"set_{which}scale")("log")
    side = getattr(axis, f"{which}axis")
    within = (1.0, 3.0) if which == "x" else (1.0, 2.0, 5.0)
    side.set_major_locator(LogLocator(subs=(1.0,) if spans(values, ONES) else within))
    side.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    side.set_minor_locator(NullLocator())
