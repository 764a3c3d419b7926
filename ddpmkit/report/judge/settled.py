"""What of one metric is settled, by the anytime-valid verdicts of its differences from the baseline."""

from __future__ import annotations

from collections.abc import Mapping

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.report.judge.grown import fewest
from ddpmkit.report.judge.summary import Summary
from ddpmkit.statistics import ONE_RESULT, Contrast
from ddpmkit.study.look import Look

OPEN = ("inconclusive", "single seed")  # verdicts that more seeds may change
SETTLED = ("better", "worse", ONE_RESULT)


def look(summary: Summary, metric: str | None = None) -> Look:
    """Return which cells' verdicts are open on a metric: the named one, else the first that ranks.

    Raises:
        DdpmkitError: when there is no such metric, or it ranks nothing.
    """
    name = ranked(summary, metric)
    contrasts = summary.differences[name]
    broken = {c for c, states in summary.counts.items() if set(states) - {"done"}}
    open_: list[str] = []
    stuck: list[str] = []
    for cell, c in contrasts.items():
        if c.verdict in SETTLED or c.verdict.startswith("no gap"):
            continue
        # Where a seed failed the verdict may be withheld for good, so more of them would be spent for nothing.
        can = c.verdict in OPEN and not broken & {cell, summary.baseline}
        (open_ if can else stuck).append(cell)
    return Look(name, summary.baseline, tuple(open_), tuple(stuck), fewest(_needed(contrasts, summary.alpha)))


def ranked(summary: Summary, metric: str | None) -> str:
    """Return the metric that verdicts are asked for.

    Raises:
        DdpmkitError: when there is none.
    """
    ranks = [m for m in summary.metrics if summary.way(m) != "none" and summary.differences.get(m)]
    if metric is not None and metric not in ranks:
        why = "ranks nothing" if metric in summary.metrics else f"is not in the study{did_you_mean(metric, ranks)}"
        raise DdpmkitError(f"metric '{metric}' {why}", f"metrics: {', '.join(ranks) or 'none'}")
    if not ranks:
        raise DdpmkitError("the study has no differences to settle", "two cells or more, and a metric that ranks them")
    return metric or ranks[0]


def _needed(contrasts: Mapping[str, Contrast], alpha: float) -> float:
    """The e-value that settles; with one seed each, that of all contrasts, which are then tested."""
    known = [c.anytime.needed for c in contrasts.values() if c.anytime]
    return max([*known, len(contrasts) / alpha]) if all(c.n < 2 for c in contrasts.values()) else max(known, default=1)
