"""The model of a report: everything that it says, in numbers; tables and pictures are made from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.files import canonical
from ddpmkit.report import advice
from ddpmkit.report.fairness import Meaning, comparable, meanings, unfair
from ddpmkit.report.frames import Records
from ddpmkit.report.metrics import BASELINE_METRIC, as_direction, read
from ddpmkit.report.notes import contrast_notes, notes_of
from ddpmkit.report.scatter import Scatter
from ddpmkit.report.seeds import BySeed, Numbers, numbers, shared
from ddpmkit.statistics import (
    ALPHA,
    ROUNDING,
    Components,
    Contrast,
    Effect,
    Interaction,
    Interval,
    Matched,
    Pairs,
    effects,
    interactions,
    judge,
    t_interval,
    words,
)

HIDDEN = ("NLL-unclipped", "NLL-train", "copy")  # in the records and the files, not in the main table
Values = dict[str, dict[int, float]]  # cell -> train seed -> value of one metric


@dataclass(frozen=True)
class Summary:
    """Everything a report says, in numbers; tables are made from it.

    Attributes:
        study: the study's name.
        cells: the cells' labels, in the plan's order.
        metrics: the metrics of the main table.
        baseline: the cell that the others are compared with.
        intervals: metric -> cell -> mean with its interval over train seeds.
        differences: metric -> cell -> contrast with the baseline.
        counts: cell -> status -> number of results.
        references: row -> metric -> value.
        notes: what must be said below the tables.
        values: metric -> cell -> train seed -> value, sample seeds averaged inside.
        directions: metric -> lower, higher or none: which way is better.
        points: cell -> axis -> level, for the axes that vary.
        effects: metric -> effects of whole axes over matched cells, in one family with the differences; none where they
            would repeat the differences, as in a study of one axis.
        interactions: metric -> interactions of two axes, a family of their own.
        margins: metric -> the gap that was said beforehand not to matter.
        variance: metric -> where the scatter of one number comes from, pooled over cells.
        variance_of_differences: the same for the paired differences from the baseline.
        smallest: metric -> the smallest gap that a study of this size shows with 80 % power.
        advice: what to run next, in sentences.
        train_seeds: the train seeds of the study.
        sample_seeds: its sample seeds.
        alpha: family-wise error rate of a metric's verdicts.
        originals: of several studies, the name here of a metric that one of them measured otherwise -> its own name.
    """

    study: str
    cells: tuple[str, ...]
    metrics: tuple[str, ...]
    baseline: str
    intervals: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Contrast]]
    counts: dict[str, dict[str, int]]
    references: dict[str, dict[str, float]]
    notes: tuple[str, ...]
    values: dict[str, Values] = field(repr=False, default_factory=dict)
    directions: dict[str, str] = field(default_factory=dict)
    points: dict[str, dict[str, str]] = field(default_factory=dict)
    effects: dict[str, tuple[Effect, ...]] = field(default_factory=dict)
    interactions: dict[str, tuple[Interaction, ...]] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)
    variance: dict[str, Components] = field(default_factory=dict)
    variance_of_differences: dict[str, Components] = field(default_factory=dict)
    smallest: dict[str, float] = field(default_factory=dict)
    advice: tuple[str, ...] = ()
    train_seeds: tuple[int, ...] = ()
    sample_seeds: tuple[int, ...] = ()
    alpha: float = ALPHA
    originals: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        out = asdict(self)
        out["values"] = {
            m: {c: {str(s): v for s, v in seeds.items()} for c, seeds in cells.items()}
            for m, cells in self.values.items()
        }
        return out


def summarise(
    records: Records,
    baseline: str | None = None,
    *,
    margin: Mapping[str, float] | str | None = None,
    directions: Mapping[str, str] | str | None = None,
    alpha: float = ALPHA,
) -> Summary:
    """Turn a study's records into intervals, contrasts, verdicts, variance parts, advice and notes.

    Args:
        records: From :func:`ddpmkit.report.frames.read_study` or :func:`ddpmkit.report.foreign.read_foreign`.
        baseline: The cell that the others are compared with; the first by default. Its levels are the references of the
            axis effects.
        margin: metric -> the gap that does not matter, set before the numbers were seen; or as text
            ``NLL=0.05,FD-digits=1``; a number alone where there is one metric.
        directions: metric -> lower, higher or none, or as text ``PSNR=higher,cost=lower``; else what the records say in
            a column ``better``, else what the metric's name says; a note says where that was a guess.
        alpha: Family-wise error rate of one metric's verdicts.

    Raises:
        DdpmkitError: for an unknown baseline, metric or direction, or a margin that is not positive.
    """
    frame = records.results
    cells = tuple(c["label"] for c in records.plan["cells"])
    own = records.originals
    metrics = tuple(m for m in dict.fromkeys(frame["metric"]) if _shown(own.get(m, m)))
    base = cells[0] if baseline is None else baseline
    if base not in cells:
        raise DdpmkitError(f"the study has no cell '{base}'{did_you_mean(base, cells)}", f"cells: {', '.join(cells)}")
    margins = read_margin(margin, metrics)
    ways, guessed = _directions(frame, metrics, directions or {}, own)
    points = {c["label"]: {a: _level(v) for a, v in c.get("point", {}).items()} for c in records.plan["cells"]}
    states = _counts(frame, cells)
    broken = frozenset(c for c, s in states.items() if set(s) - {"done"})
    known = meanings(frame)
    everything = numbers(frame)
    found = {
        m: {c: n for c, n in everything.get(m, {}).items() if known.get(m, {}).get(c, 0) is not None} for m in metrics
    }
    values = {m: {c: found[m].get(c, Numbers()).values for c in cells} for m in metrics}
    intervals = {m: {c: _interval(list(v.values())) for c, v in values[m].items() if v} for m in metrics}
    judged = {
        m: _judge(values[m], base, points, known.get(m, {}), broken, ways[m], margins.get(m), alpha, found[m])
        for m in metrics
    }
    parts = Scatter(frame, metrics)
    variance = {m: parts.of_values(m, cells) for m in metrics}
    of_differences = {m: parts.of_differences(m, base, judged[m].differences) for m in metrics}
    shown = {m: advice.smallest(judged[m].tested, judged[m].spreads, alpha) for m in metrics}
    notes = notes_of(records, metrics, states)
    if guessed:
        names = ", ".join(f"{m} {ways[m]}" for m in guessed)
        notes.append(
            f"Which way is better was guessed: {names}. A column 'better' or --better {guessed[0]}=higher says it."
        )
    for m in metrics:
        short = [f"{c} {', '.join(map(str, n.short))}" for c, n in found[m].items() if n.short]
        if short:
            notes.append(f"{m}: train seeds left out because sample seeds are missing: {'; '.join(short)}.")
    notes += unfair(frame[frame["metric"].isin(metrics)], {m: known[m] for m in metrics if m in known}, base)
    notes += contrast_notes(
        {m: j.differences for m, j in judged.items()},
        {m: j.interactions for m, j in judged.items()},
        points,
        len(records.plan["grid"]["train_seeds"]),
    )
    told: list[tuple[str, str]] = []
    for m in metrics:
        sampled = parts.sampled(m)
        said = advice.to_settle(judged[m].open)
        said += advice.which_seeds(of_differences[m], sampled) if judged[m].open else []
        said += advice.measuring(variance[m], "raise --samples" if sampled else "raise nll_evals (--axis nll_evals=N)")
        told += [(m, sentence) for sentence in said]
    return Summary(
        records.name,
        cells,
        metrics,
        base,
        intervals,
        {m: j.differences for m, j in judged.items()},
        states,
        _references(records, metrics),
        tuple(notes),
        values,
        directions=ways,
        points=points,
        effects={m: j.effects for m, j in judged.items()},
        interactions={m: j.interactions for m, j in judged.items()},
        margins=margins,
        variance={m: v for m, v in variance.items() if v is not None},
        variance_of_differences={m: v for m, v in of_differences.items() if v is not None},
        smallest={m: v for m, v in shown.items() if v is not None},
        advice=tuple(advice.merged(told)),
        train_seeds=tuple(int(s) for s in records.plan["grid"]["train_seeds"]),
        sample_seeds=tuple(int(s) for s in records.plan["grid"].get("sample_seeds", ())),
        alpha=alpha,
        originals={m: own[m] for m in metrics if m in own},
    )


def _shown(metric: str) -> bool:
    """Whether a metric, by its own name, stands in the main table."""
    return metric not in HIDDEN and not metric.endswith("-debiased")


def read_margin(margin: Mapping[str, float] | str | None, metrics: Sequence[str]) -> dict[str, float]:
    """Read margins of equivalence: ``NLL=0.05,FD-digits=1``, or a number alone where there is one metric.

    Raises:
        DdpmkitError: for an unknown metric, or a margin that is not positive.
    """
    example = f"write it as {metrics[-1] if metrics else 'NLL'}=0.05"
    pairs: list[tuple[str, str | float]] = []
    pairs += _pairs(margin, metrics) if isinstance(margin, str) else (margin or {}).items()
    out = {}
    for name, value in pairs:
        metric = name.strip()
        if not metric:
            raise DdpmkitError(f"margin '{value}' names no metric, and there are {len(metrics)}", example)
        if metric not in metrics:
            raise DdpmkitError(
                f"margin for an unknown metric '{metric}'{did_you_mean(metric, metrics)}",
                f"metrics: {', '.join(metrics)}",
            )
        try:
            out[metric] = float(value)
        except ValueError:
            raise DdpmkitError(f"margin '{value}' of {metric} is no number", example) from None
        if not 0 < out[metric] < math.inf:
            raise DdpmkitError(f"margin {value} of {metric} is not positive", example)
    return out


def _pairs(text: str, metrics: Sequence[str]) -> list[tuple[str, str]]:
    """Read ``NLL=0.05,FD-digits=1`` as metric and value; a value alone where there is one metric."""
    split = [part.rpartition("=") for part in text.split(",") if part.strip()]
    only = metrics[0] if len(metrics) == 1 else ""
    return [(name.strip() or only, value.strip()) for name, _, value in split]


@dataclass(frozen=True)
class _Judged:
    """What is known of one metric's contrasts."""

    differences: dict[str, Contrast]
    effects: tuple[Effect, ...]
    interactions: tuple[Interaction, ...]
    tested: tuple[Contrast, ...]
    spreads: dict[int, float]  # sd of the differences of each tested contrast
    open: dict[str, tuple[Contrast, float]]  # undecided for want of seeds, with the sd of its differences


_NOTHING = Contrast(math.nan, None, None, None, None, None, 0, "not comparable")


def _judge(
    values: Values,
    base: str,
    points: Mapping[str, Mapping[str, str]],
    known: dict[str, Meaning | None],
    broken: frozenset[str],
    way: str,
    margin: float | None,
    alpha: float,
    found_in: Mapping[str, Numbers],
) -> _Judged:
    """Put one metric's differences and effects into one family, its interactions into another, and test them."""

    def alike(group: Sequence[str]) -> bool:
        return comparable(known, list(group))

    def side_by_side(group: Sequence[str]) -> dict[str, BySeed]:
        return shared(found_in, group)

    ranks = words({"lower": True, "higher": False}.get(way))
    family: dict[tuple[str, ...], Pairs] = {}
    if values[base]:
        for cell, mine in values.items():
            if cell != base and mine and alike((cell, base)):
                both = side_by_side((cell, base))
                family["cell", cell] = Pairs.match(both[cell], both[base], cell not in broken, base not in broken)
    matched = {}
    if any(len(p) > 1 for p in points.values()):
        for m in effects(points, values, base, broken=broken, comparable=alike, shared=side_by_side):
            # An effect over one pair that holds the baseline is a difference that stands in the table already.
            groups = m.cells or m.left_out
            if len(groups) > 1 or base not in groups[0]:
                matched["effect", *m.axes, *m.levels] = m
    found = judge({**family, **{k: m.pairs for k, m in matched.items()}}, ranks, alpha=alpha, margin=margin)
    squares: list[Matched] = interactions(points, values, base, broken=broken, comparable=alike, shared=side_by_side)
    ranking = ("interaction", "interaction") if ranks else None
    crossed = judge(dict(enumerate(m.pairs for m in squares)), ranking, alpha=alpha, margin=margin)
    differences = {c: found.get(("cell", c), _NOTHING) for c in values if values[base] and values[c] and c != base}
    pairs = {**family, **{k: m.pairs for k, m in matched.items()}}
    tested = [k for k, c in found.items() if c.p_holm is not None]
    # Where all differences are the same their spread is not known, rather than zero.
    spreads = {k: float(np.std(pairs[k].differences, ddof=1)) for k in tested if not found[k].flat}
    undecided = {
        k[1] if k[0] == "cell" else f"{k[1]} {k[2]}": (found[k], spreads[k])
        for k in tested
        if found[k].verdict == "inconclusive" and (found[k].p_holm or 0) > alpha and not found[k].flat
    }
    return _Judged(
        differences,
        tuple(
            Effect(m.axes[0], m.levels[0], m.references[0], len(m.cells), len(m.left_out), found[k])
            for k, m in matched.items()
        ),
        tuple(
            Interaction(
                (m.axes[0], m.axes[1]),
                (m.levels[0], m.levels[1]),
                (m.references[0], m.references[1]),
                len(m.cells),
                crossed[i],
            )
            for i, m in enumerate(squares)
        ),
        tuple(found[k] for k in tested),
        dict(enumerate(spreads.values())),
        undecided,
    )


def _interval(values: Sequence[float]) -> Interval:
    """The interval of a cell; none where its numbers are the same on every seed, for it would claim to know them."""
    found = t_interval(values)
    same = max(values) - min(values) <= ROUNDING * max(map(abs, values))
    return replace(found, low=None, high=None) if same else found


def by_seed(frame: pd.DataFrame, metric: str, cell: str) -> dict[int, float]:
    """Return train seed -> value, sample seeds averaged inside; only train seeds whose every sample is done."""
    found = numbers(frame[(frame["metric"] == metric) & (frame["cell"] == cell)])
    return found.get(metric, {}).get(cell, Numbers()).values


def _counts(frame: pd.DataFrame, cells: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return cell -> status -> number of results; a result is as bad as the worst of its metrics."""
    keys = ["cell", "train_seed", "sample_seed"]
    bad_first = frame[[*keys, "status"]].assign(good=frame["status"] == "done")
    each = bad_first.sort_values("good", kind="stable").drop_duplicates(keys).sort_index()
    out: dict[str, dict[str, int]] = {c: {} for c in cells}
    for cell, status in zip(each["cell"], each["status"], strict=True):
        of_cell = out[str(cell)]
        of_cell[str(status)] = of_cell.get(str(status), 0) + 1
    return out


def _directions(
    frame: pd.DataFrame, metrics: Sequence[str], asked: Mapping[str, str] | str, own: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return which way each metric is better (as the caller says, else the records, else its name), and the guesses."""
    given = dict(_pairs(asked, metrics)) if isinstance(asked, str) else asked
    for metric in given:
        if metric not in metrics:
            raise DdpmkitError(
                f"direction for an unknown metric '{metric}'{did_you_mean(metric, metrics)}",
                f"metrics: {', '.join(metrics)}",
            )
    said = {}
    if "better" in frame:
        rows = frame.loc[frame["better"].notna() & (frame["better"] != ""), ["metric", "better"]].drop_duplicates()
        said = dict(zip(rows["metric"], rows["better"], strict=True))
    told = {**said, **given}
    ways: dict[str, str] = {m: as_direction(str(told[m]), m) if m in told else read(own.get(m, m)).way for m in metrics}
    return ways, [m for m in metrics if m not in told and not read(own.get(m, m)).sure]


def _level(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


def _references(records: Records, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    out: dict[str, dict[str, float]] = {}

    def put(name: str, metric: str, value: float, study: str) -> None:
        row = out.setdefault(name, {})
        if (
            metric in metrics and row.get(metric, value) != value
        ):  # two studies of one column, and not of one number: a row each
            row = out.setdefault(f"{name} ({study})", {})
        row[metric] = value

    for ref in records.references:
        study = str(ref.get("study", ""))
        real = f"real, {'test' if ref['split'] == 'train' else 'train'} n={ref['n_floor']}"
        for metric, value in ref["floors"].items():
            put(real, metric, value, study)
        under = ref.get("baselines_under", BASELINE_METRIC)
        if under in metrics:
            for name, bits in ref["baselines"].items():
                put(name, under, bits, study)
    return out
