"""Two one-sided tests: is the gap smaller than a margin that was set before the numbers were seen?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr

from ddpmkit.statistics.paired import without_spread


def equivalence_p(differences: Sequence[float], margin: float, rounding: float = 0.0) -> float | None:
    """Return the p of "the gap is at least the margin": the larger p of the two one-sided paired t tests.

    p = max(P(T >= (mean + margin) / se), P(T <= (mean - margin) / se)), T with n - 1 degrees of freedom (Schuirmann
    1987, Journal of Pharmacokinetics and Biopharmaceutics 15:657-680). At most alpha exactly when the interval of level
    1 - 2 alpha lies inside (-margin, margin). None below two pairs, and where the differences are all the same but for
    rounding: nothing is then known of their spread, and the least p of an exact test would not do, for none is exact.

    Args:
        differences: One a pair.
        margin: The gap that does not matter.
        rounding: Size below which differences of the differences are rounding.

    Raises:
        ValueError: when the margin is not positive and finite.
    """
    if not 0 < margin < math.inf:
        raise ValueError("a margin is a positive number")
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2 or without_spread(differences, rounding):
        return None
    mean, se = float(d.mean()), float(d.std(ddof=1)) / math.sqrt(len(d))
    return float(stdtr(len(d) - 1, (abs(mean) - margin) / se))
