"""What became of a study's orderings: each a paired contrast over the seeds that it names, Holm over all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ddpmkit.report.judge.same import form
from ddpmkit.report.judge.seeds import Numbers, shared
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.meaning import Meaning, comparable
from ddpmkit.report.read.reference import BASELINE_METRIC, GIVEN_CLASS
from ddpmkit.statistics import ONE_RESULT, Contrast, Pairs, judge
from ddpmkit.study.orderings import Ordering, places
from ddpmkit.study.settings import NLL

AGREES, DISAGREES, OPEN = "agrees", "disagrees", "open"


@dataclass(frozen=True)
class Outcome:
    """An ordering and what came of it.

    Attributes:
        ordering: what was expected.
        column: the column that it is about; empty where it has none.
        cells: the labels of cell and baseline; empty for one that the study does not have.
        ours: their means over the seeds that decide, where all of those are there.
        contrast: cell - baseline, paired by seed; None where it can't be taken.
        verdict: agrees, disagrees or open.
        why: what the verdict rests on, in words.
    """

    ordering: Ordering
    column: str = ""
    cells: tuple[str, str] = ("", "")
    ours: tuple[float | None, float | None] = (None, None)
    contrast: Contrast | None = None
    verdict: str = OPEN
    why: str = ""


def outcomes(
    records: Records,
    numbers: Mapping[str, Mapping[str, Numbers]],
    meanings: Mapping[str, Mapping[str, Meaning | None]],
    alpha: float,
) -> tuple[Outcome, ...]:
    """Judge all orderings of a study as one family, whatever else is shown of it.

    The seeds were fixed beforehand, so the paired t test holds however the study grew; an ordering is open until all of
    them are there, and counts in the family with p = 1: what is there first has no easier test. "lower" and "higher"
    agree when Holm rejects "no difference" on that side, and disagree when it does on the other, or when the gap is
    shown to be within the margin; "equal" agrees when it is, and where both sides rest on the same stages.

    Args:
        records: Of one study, all its cells.
        numbers: Metric -> cell -> its numbers by train seed.
        meanings: Metric -> cell -> what they mean.
        alpha: Family-wise error rate.
    """
    found: list[Outcome] = []
    family: dict[int, Pairs] = {}
    for index, ordering in enumerate(map(Ordering.of_json, records.plan.get("orderings", ()))):
        outcome, pairs = _paired(ordering, records, numbers, meanings)
        found.append(outcome)
        if pairs is not None:
            family[index] = pairs
    margins = {i: found[i].ordering.margin for i in family}
    same = {i for i in family if not form(numbers[found[i].column], (found[i].cells,), found[i].ordering.seeds)}
    contrasts = judge(family, ("lower", "higher"), alpha=alpha, margin=margins, same=same, size=len(found))
    return tuple(_decided(o, contrasts[i], alpha) if i in contrasts else o for i, o in enumerate(found))


def _paired(
    o: Ordering,
    records: Records,
    numbers: Mapping[str, Mapping[str, Numbers]],
    meanings: Mapping[str, Mapping[str, Meaning | None]],
) -> tuple[Outcome, Pairs | None]:
    """Find both sides of an ordering; the outcome says why there are none."""
    cells = records.plan["cells"]
    settings = [c["settings"] for c in cells]
    at = [places(side, settings) for side in o.sides]
    out = Outcome(o)
    for which, side in zip(("cell", "baseline"), at, strict=True):
        if len(side) != 1:
            return replace(
                out, why=f"its {which} is {len(side) or 'no'} cell{'s' * (len(side) > 1)} of the study"
            ), None
    cell, base = (str(cells[i[0]]["label"]) for i in at)
    column = o.metric
    if column == NLL:
        column = GIVEN_CLASS if settings[at[0][0]].get("conditional") else BASELINE_METRIC
    out = replace(out, column=column, cells=(cell, base))
    both = shared(numbers.get(column, {}), (cell, base))
    there = [s for s in o.seeds if s in both[cell] and s in both[base]]
    if len(there) < len(o.seeds):
        return replace(out, why=f"{len(there)} of {len(o.seeds)} seeds"), None
    if not comparable(meanings.get(column, {}), (cell, base)):
        return replace(out, why="the numbers do not mean the same"), None
    frame = records.results
    rows = frame[(frame["metric"] == column) & frame["cell"].isin((cell, base)) & frame["train_seed"].isin(o.seeds)]
    sizes = sorted({int(n) for n in rows["n"].dropna()})
    if o.n is not None and sizes != [o.n]:
        return replace(out, why=f"over {', '.join(map(str, sizes))} images, stated for {o.n}"), None
    pairs = Pairs.match({s: both[cell][s] for s in o.seeds}, {s: both[base][s] for s in o.seeds})
    means = math.fsum(pairs.cell) / len(o.seeds), math.fsum(pairs.base) / len(o.seeds)
    return replace(out, ours=means), pairs


def _decided(out: Outcome, c: Contrast, alpha: float) -> Outcome:
    small = c.verdict == ONE_RESULT or (c.p_equivalence_holm is not None and c.p_equivalence_holm <= alpha)
    wanted = out.ordering.expected
    if wanted == "equal":
        verdict = AGREES if small else DISAGREES if c.verdict in ("lower", "higher") else OPEN
    elif c.verdict == wanted:
        verdict = AGREES
    else:
        verdict = DISAGREES if small or c.verdict in ("lower", "higher") else OPEN
    return replace(out, contrast=c, verdict=verdict, why=c.verdict)
