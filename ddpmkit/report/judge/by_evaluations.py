"""A metric against what it costs: a line a cell but for its number of steps, a point each number.

Of drawn samples the cost is network evaluations. The bound has one where it is that of the walk's own chain
(``nll_chain = walk``): the chain's steps, for its terms are asked at random and their number says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.axes import STEPS, setting_text, settings_of, varying_in_order
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.reference import BITS
from ddpmkit.statistics import Interval

EVALUATIONS = "evaluations of the network for one image"
CHAIN = "steps of the chain"


@dataclass(frozen=True)
class Lines:
    """One metric by network evaluations.

    Attributes:
        metric: the metric.
        axes: what else than the number of steps varies among the cells.
        points: the levels on these axes -> (evaluations or steps, mean with its interval over train seeds), the
            fewest first.
        along: what is counted.
    """

    metric: str
    axes: tuple[str, ...]
    points: dict[tuple[str, ...], list[tuple[float, Interval]]]
    along: str


def lines_by_evaluations(records: Records, summary: Summary) -> list[Lines]:
    """Return the lines of every metric that has a cost; none where no cells differ in their number of steps."""
    axes = varying_in_order(records)
    if STEPS not in axes:
        return []
    rest = tuple(a for a in axes if a != STEPS)
    out = []
    for metric in summary.metrics:
        bits = summary.originals.get(metric, metric) in BITS
        cost = _steps(records) if bits else _evaluations(records, metric)
        points: dict[tuple[str, ...], list[tuple[float, Interval]]] = {}
        for cell in records.plan["cells"]:
            interval = summary.intervals[metric].get(cell["label"])
            if interval is not None and cell["label"] in cost:
                at = tuple(setting_text(settings_of(cell).get(a)) for a in rest)
                points.setdefault(at, []).append((cost[cell["label"]], interval))
        points = {at: sorted(line, key=lambda point: point[0]) for at, line in points.items()}
        if any(len(line) > 1 for line in points.values()):
            out.append(Lines(metric, rest, points, CHAIN if bits else EVALUATIONS))
    return out


def _evaluations(records: Records, metric: str) -> dict[str, float]:
    """Cell -> evaluations of the network for one image."""
    frame = records.results
    rows = frame[(frame["metric"] == metric) & frame["evaluations"].notna() & (frame["n"] > 0)]
    cost = (rows["evaluations"] / rows["n"]).groupby(rows["cell"]).mean()
    return {str(cell): float(value) for cell, value in cost.items()}


def _steps(records: Records) -> dict[str, float]:
    """Cell -> steps of the chain whose bound it is, of cells whose bound is the walk's."""
    every = {cell["label"]: settings_of(cell) for cell in records.plan["cells"]}
    return {label: float(s[STEPS]) for label, s in every.items() if s.get("nll_chain") == "walk" and s.get(STEPS)}


def _more_steps(records: Records) -> list[int]:
    """Numbers of steps to ask for: those that the study has, which it may not lose, and some beside."""
    grid = records.plan.get("grid", {})
    asked = grid.get("axes", {}).get(STEPS) or [grid.get("settings", {}).get(STEPS)]
    here = {settings_of(cell).get(STEPS) for cell in records.plan["cells"]}
    return sorted({10, 20, 50}.union(n for n in (*asked, *here) if isinstance(n, int)))


def the_lines(records: Records, summary: Summary, metric: str | None) -> Lines:
    """Return the lines of a metric, by default the first one.

    Raises:
        DdpmkitError: when no cells differ in their number of steps alone, or there is no such metric.
    """
    found = {lines.metric: lines for lines in lines_by_evaluations(records, summary)}
    if not found:
        raise DdpmkitError(
            f"study '{summary.study}' has no number of one cell at two numbers of steps",
            f"ddpmkit ablate {summary.study} --axis {STEPS}={','.join(map(str, _more_steps(records)))}",
        )
    if metric is not None and metric not in found:
        raise DdpmkitError(f"no line of '{metric}'{did_you_mean(metric, found)}", f"metrics: {', '.join(found)}")
    return found[metric or next(iter(found))]
