"""Honest tables with few seeds: Student-t intervals over train seeds, contrasts paired by seed, Holm, verdicts.

The unit of replication is the train seed; sample seeds are averaged inside it before anything here is called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

ALPHA = 0.05


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its Student-t interval; one seed has none."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Contrast:
    """The difference of two cells, paired by train seed.

    Attributes:
        difference: mean of (cell - baseline) over the common seeds.
        low: lower end of the interval, at the level that Holm gave this contrast, so that it agrees with the verdict.
        high: its upper end.
        p: two-sided p of the paired t test, not adjusted.
        p_holm: adjusted for all contrasts of the family.
        correlation: realised correlation between the two cells over seeds; at or below 0 the pairing gained nothing.
        n: number of common seeds.
        verdict: better, worse, inconclusive, or single seed.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    correlation: float | None
    n: int
    verdict: str


def t_interval(values: Sequence[float], level: float = 1 - ALPHA) -> Interval:
    """Return mean -+ t_{n-1} s / sqrt(n). One value gives a mean and no interval.

    Raises:
        ValueError: when there is no value.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        raise ValueError("an interval needs at least one value")
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, None, None, 1)
    half = float(stdtrit(len(x) - 1, 0.5 + level / 2) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, len(x))


def paired_p(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the paired t test that the mean difference is zero; None below two pairs."""
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2:
        return None
    spread = d.std(ddof=1)
    if spread == 0:
        return 1.0 if d.mean() == 0 else 0.0
    return float(2 * stdtr(len(d) - 1, -abs(d.mean() / spread * math.sqrt(len(d)))))


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values: sort, multiply by m - i, running maximum, at most 1 (Holm 1979)."""
    m = len(ps)
    adjusted, running = [0.0] * m, 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: ps[i])):
        running = max(running, min(1.0, (m - rank) * ps[index]))
        adjusted[index] = running
    return adjusted


def contrasts(
    cells: Mapping[str, Mapping[int, float]],
    baseline: str,
    *,
    lower_is_better: bool = True,
    never_better: frozenset[str] = frozenset(),
    alpha: float = ALPHA,
) -> dict[str, Contrast]:
    """Compare every cell with the baseline on one metric; these contrasts are the family that Holm adjusts over.

    Args:
        cells: cell -> train seed -> value.
        baseline: The cell that the others are compared with.
        lower_is_better: The metric's direction.
        never_better: Cells with a diverged or failed seed, which are not called better on the seeds that are left; the
            others are then not called worse than such a baseline either.
        alpha: Family-wise error rate.
    """
    base = cells[baseline]
    pairs = {
        name: [(values[s], base[s]) for s in sorted(values.keys() & base.keys())]
        for name, values in cells.items()
        if name != baseline
    }
    raw = {name: paired_p([a - b for a, b in both]) for name, both in pairs.items()}
    tested = [(name, p) for name, p in raw.items() if p is not None]
    adjusted = dict(zip([n for n, _ in tested], holm([p for _, p in tested]), strict=True))
    levels = _holm_levels(dict(tested), alpha)
    out = {}
    for name, both in pairs.items():
        if not both:
            out[name] = Contrast(math.nan, None, None, None, None, None, 0, "no common seed")
            continue
        differences = [a - b for a, b in both]
        interval = t_interval(differences, 1 - levels.get(name, alpha))
        verdict = "single seed"
        if raw[name] is not None:
            verdict = "inconclusive"
            if adjusted[name] <= alpha:
                good = (interval.mean < 0) == lower_is_better
                if (name if good else baseline) not in never_better:
                    verdict = "better" if good else "worse"
        out[name] = Contrast(
            interval.mean,
            interval.low,
            interval.high,
            raw[name],
            adjusted.get(name),
            _correlation(both),
            len(both),
            verdict,
        )
    return out


def _holm_levels(ps: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Return, for each contrast, the level at which Holm decided about it.

    The i-th smallest p is held against alpha / (m - i) until one fails; the level of that one decides all the rest. The
    interval at this level excludes zero exactly when Holm rejects.
    """
    levels, stopped = {}, None
    for rank, name in enumerate(sorted(ps, key=lambda n: ps[n])):
        level = alpha / (len(ps) - rank) if stopped is None else stopped
        levels[name] = level
        if stopped is None and ps[name] > level:
            stopped = level
    return levels


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    a, b = np.asarray(pairs, dtype=np.float64).T
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
