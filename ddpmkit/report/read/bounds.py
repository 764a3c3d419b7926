"""What a metric can't be: an interval of Student's t knows no bound, and may reach beyond."""

from __future__ import annotations

import math
import re

# Whole first words of a name, as in FD-digits. KID is unbiased, and negative by chance; a likelihood has no bound here.
NEVER_NEGATIVE = ("fd", "fid", "sw", "precision", "recall", "density", "coverage")
AT_MOST_ONE = ("precision", "recall", "coverage")


def bounds(metric: str) -> tuple[float, float]:
    """Return the least and the largest value that a metric of this name can have."""
    found = re.fullmatch(r"([a-z]+)(-\S*)?", metric.split(" (")[0].lower())
    word = found[1] if found and not metric.endswith("-debiased") else ""
    return 0.0 if word in NEVER_NEGATIVE else -math.inf, 1.0 if word in AT_MOST_ONE else math.inf
