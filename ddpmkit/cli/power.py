"""What a plan's train seeds can show, and by what rule: told before a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ddpmkit.study.grids import in_ranges
from ddpmkit.study.plan import Plan
from ddpmkit.study.prepare import Prepared

T_TEST, E_VALUE = "t test", "e-value"


def by_e_value(prepared: Prepared, until: bool = False) -> bool:
    """Whether a study's verdicts will be by e-value: its train seeds grew, grow now, or are added ``until`` settled."""
    from ddpmkit.report.judge.grown import in_seeds
    from ddpmkit.study import growth

    seeds = prepared.there.grid.get("train_seeds") if prepared.there else None
    more = seeds is not None and {*seeds} != {*prepared.study.train_seeds}
    return until or more or in_seeds(growth.of(prepared.folder))


def families(plan: Plan) -> tuple[int, ...]:
    """Return how many contrasts a verdict is adjusted for, by metrics of samples and of likelihoods, as planned.

    Differences from the baseline and effects of whole axes are one family. Those that rest on the same stages count
    once, as a likelihood does that sees nothing of two cells' sampling.
    """
    from ddpmkit.statistics import effects

    labels = [cell.label for cell in plan.cells]
    base = labels[0]
    points = {c.label: {axis: str(value) for axis, value in c.point.items()} for c in plan.cells}
    groups: list[tuple[tuple[str, ...], ...]] = [((label, base),) for label in labels[1:]]
    if any(len(point) > 1 for point in points.values()):
        for effect in effects(points, {label: {0: 0.0} for label in labels}, base):
            if len(effect.cells) > 1 or base not in effect.cells[0]:  # else it is a difference
                groups.append(effect.cells)
    first = {r.cell: r for r in reversed(plan.results)}
    of_samples = {c: r.sample for c, r in first.items() if r.sample}
    of_bounds = {c: r.nll for c, r in first.items() if r.nll}
    return tuple(_distinct(groups, stages) for stages in (of_samples, of_bounds) if stages)


def visible(seeds: int, contrasts: int, *, e_value: bool = False) -> dict[str, float | None]:
    """The smallest true gap that is likely found (power 0.8, Holm's first level; or the e-value of such a family).

    In standard deviations of one cell over train seeds, by the correlation of two cells over seeds, 0 and 0.8.
    """
    from ddpmkit.statistics import smallest_visible

    many = max(contrasts, 1)
    return {f"{r:g}": smallest_visible(seeds, 1.0, correlation=r, contrasts=many, anytime=e_value) for r in (0.0, 0.8)}


def fewest_seeds(contrasts: Sequence[int]) -> tuple[int, int]:
    """The fewest train seeds at which any e-value settles a verdict, of the smallest family and of the largest."""
    from ddpmkit.report.judge.grown import fewest
    from ddpmkit.statistics import ALPHA

    found = [fewest(max(m, 1) / ALPHA) for m in contrasts] or [fewest(1 / ALPHA)]
    return min(found), max(found)


def power_json(prepared: Prepared, *, until: bool = False) -> dict[str, Any]:
    """What :func:`power_line` says, as JSON values."""
    contrasts, grown = families(prepared.plan), by_e_value(prepared, until)
    seeds = len(prepared.study.train_seeds)
    return {
        "judged_by": E_VALUE if grown else T_TEST,
        "fewest_seeds": fewest_seeds(contrasts)[1] if grown else 2,
        "visible": visible(seeds, max(contrasts, default=0), e_value=grown),
    }


def power_line(prepared: Prepared, *, until: bool = False) -> str:
    """Say by what rule verdicts fall, where it is not that of a fixed number of seeds, and what the seeds can show."""
    seeds, cells, contrasts = len(prepared.study.train_seeds), len(prepared.plan.cells), families(prepared.plan)
    grown, most = by_e_value(prepared, until), max(contrasts, default=0)
    if cells < 2 and seeds > 1:
        return f"power: one cell, so no difference; its interval is over {seeds} train seeds"
    many = f"{most} contrast{'s' * (most != 1)}"
    if grown and cells > 1:
        return _of_e_values(prepared, seeds, contrasts, many)
    found = visible(seeds, most)
    if (apart := found["0"]) is None:
        return "power: one train seed shows no difference between cells; --train-seeds 0-4 shows large ones"
    return f"power: {seeds} train seeds {_gaps(apart, found['0.8'])} ({many}, Holm)"


def _of_e_values(prepared: Prepared, seeds: int, contrasts: Sequence[int], many: str) -> str:
    """The line of a study whose train seeds grow."""
    low, high = fewest_seeds(contrasts)
    rule = "power: train seeds are added to this study, so verdicts are by e-value, not by the t test of a fixed number"
    bound = f"{high}" if low == high else f"{low} to {high}, by metric,"
    if seeds < low:
        start = max(prepared.study.train_seeds) + 1
        more = sorted({*prepared.study.train_seeds, *range(start, start + high - seeds)})
        enough = ",".join(in_ranges([str(s) for s in more]))
        return (
            f"{rule}; with {many} none falls below {bound} train seeds, and these are {seeds}: --train-seeds {enough}"
        )
    found = visible(seeds, max(contrasts, default=0), e_value=True)
    if (apart := found["0"]) is None:
        return f"{rule}; with {many} none falls below {bound} train seeds, and these are {seeds}"
    return f"{rule}; {seeds} train seeds {_gaps(apart, found['0.8'])} ({many}; none falls below {bound} train seeds)"


def _gaps(apart: float, paired: float | None) -> str:
    return (
        f"likely find a gap of {apart:.2g} standard deviations over seeds, {paired or apart:.2g} where seeds correlate "
        "by 0.8"
    )


def _distinct(groups: Iterable[Sequence[Sequence[str]]], stages: dict[str, str]) -> int:
    """How many contrasts are different means over stages, and not empty."""
    found = set()
    for group in groups:
        weights = Counter[str]()  # in units of 1 / size
        for cell, other in group:
            if cell in stages and other in stages:
                weights[stages[cell]] += 1
                weights[stages[other]] -= 1
        if any(weights.values()):
            shared = math.gcd(len(group), *weights.values())
            found.add((len(group) // shared, frozenset((i, n // shared) for i, n in weights.items() if n)))
    return len(found)
