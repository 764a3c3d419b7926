"""From records to a summary: intervals, contrasts, verdicts, variance parts, advice and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.files import canonical
from ddpmkit.report.judge import advice
from ddpmkit.report.judge.fairness import unfair
from ddpmkit.report.judge.families import Design, Judged, Measured, judged
from ddpmkit.report.judge.grown import grown_notes, in_seeds
from ddpmkit.report.judge.near_noise import UNLEARNED, caution, rows_note
from ddpmkit.report.judge.notes import beyond, contrast_notes, copy_notes, notes_of
from ddpmkit.report.judge.orderings import outcomes
from ddpmkit.report.judge.overrides import read_directions, read_margin
from ddpmkit.report.judge.scatter import Scatter
from ddpmkit.report.judge.seeds import Numbers, numbers
from ddpmkit.report.judge.split import splits
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.by_class import HELD_OUT, classes_in
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.meaning import meanings
from ddpmkit.report.read.reference import BITS
from ddpmkit.statistics import ALPHA, ROUNDING, Components, Interval, t_interval
from ddpmkit.study.records import UNITS_BEFORE

# In the records and the files, not in the main table.
HIDDEN = ("copy", *(f"{bits}-{which}" for bits in BITS for which in ("unclipped", "train")))


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
        records: From :func:`ddpmkit.report.read.frames.read_study` or :func:`ddpmkit.report.read.foreign.read_foreign`.
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
    frame, own = records.results, records.originals
    cells = tuple(c["label"] for c in records.plan["cells"])
    of_one_class = classes_in(frame, own)
    metrics = tuple(
        m for m in dict.fromkeys(frame["metric"]) if m not in of_one_class and _in_main_table(own.get(m, m))
    )
    base = cells[0] if baseline is None else baseline
    if base not in cells:
        raise DdpmkitError(f"the study has no cell '{base}'{did_you_mean(base, cells)}", f"cells: {', '.join(cells)}")
    margins = read_margin(margin, metrics)
    ways, guesses = read_directions(frame, metrics, directions or {}, own)
    points = {c["label"]: {a: _level(v) for a, v in c.get("point", {}).items()} for c in records.plan["cells"]}
    counts = _counts(frame, cells)
    known = meanings(frame)
    everything = numbers(frame)
    usable = {
        m: {c: n for c, n in everything.get(m, {}).items() if known.get(m, {}).get(c, 0) is not None} for m in metrics
    }
    broken, grown = frozenset(c for c, s in counts.items() if set(s) - {"done"}), in_seeds(records.growths)
    design = Design(base, points, broken, alpha, grown)
    measured = {
        m: Measured({c: usable[m].get(c, Numbers()) for c in cells}, known.get(m, {}), ways[m], margins.get(m))
        for m in metrics
    }
    contrasts = {m: judged(design, measured[m]) for m in metrics}
    differences = {m: j.differences for m, j in contrasts.items()}
    crossed = {m: j.interactions for m, j in contrasts.items()}
    values = {m: {c: n.values for c, n in measured[m].numbers.items()} for m in metrics}
    scatter = Scatter(frame, metrics)
    variance = {m: scatter.of_values(m, cells) for m in metrics}
    of_differences = {
        m: scatter.of_differences(m, base, {c: d for c, d in j.differences.items() if c not in j.copies})
        for m, j in contrasts.items()
    }
    smallest = {m: advice.smallest(j.tested, j.spreads, alpha) for m, j in contrasts.items()}
    seeds = [int(s) for s in records.plan["grid"]["train_seeds"]]
    notes = notes_of(records, metrics, counts)
    notes += grown_notes(differences, records.plan.get("stopped", {}), alpha) if grown else []
    if guesses:
        names = ", ".join(f"{m} {ways[m]}" for m in guesses)
        notes.append(
            f"Which way is better was guessed: {names}. A column 'better' or --better {guesses[0]}=higher says it."
        )
    for m in metrics:
        short = [f"{c} {', '.join(map(str, n.short))}" for c, n in usable[m].items() if n.short]
        if short:
            notes.append(f"{m}: train seeds left out because sample seeds are missing: {'; '.join(short)}.")
    notes += unfair(frame[frame["metric"].isin(metrics)], {m: known[m] for m in metrics if m in known}, base)
    intervals = {m: {c: _interval(list(v.values())) for c, v in values[m].items() if v} for m in metrics}
    notes += rows_note(records, [m for m in metrics if intervals.get(m)])
    notes += beyond(intervals, own)
    notes += contrast_notes(differences, crossed, points, len(seeds))
    notes += copy_notes(base, {m: j.copies for m, j in contrasts.items()}, differences)
    return Summary(
        study=records.name,
        cells=cells,
        metrics=metrics,
        baseline=base,
        intervals=intervals,
        differences=differences,
        counts=counts,
        references=_references(records, metrics),
        notes=tuple(notes),
        values=values,
        directions=ways,
        points=points,
        effects={m: j.effects for m, j in contrasts.items()},
        interactions=crossed,
        margins=margins,
        variance={m: v for m, v in variance.items() if v is not None},
        variance_of_differences={m: v for m, v in of_differences.items() if v is not None},
        smallest={m: v for m, v in smallest.items() if v is not None},
        advice=_advice(contrasts, scatter, variance, of_differences),
        train_seeds=tuple(seeds),
        sample_seeds=tuple(int(s) for s in records.plan["grid"].get("sample_seeds", ())),
        alpha=alpha,
        originals={m: own[m] for m in metrics if m in own},
        units=_units(frame, metrics),
        copies={m: j.copies for m, j in contrasts.items() if j.copies},
        by_class=_by_class(records, of_one_class, everything),
        classes=tuple(records.plan.get("classes", ())),
        grown=grown,
        splits=splits(records, base, differences, {m: j.copies for m, j in contrasts.items()}, own),
        orderings=outcomes(records, everything, known, alpha),
        caution=caution(records, metrics, intervals),
    )


def _units(frame: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """Metric -> its unit, where the records agree on one; that of a distance is said by its name."""
    said = {m: {str(u) for u in frame.loc[frame["metric"] == m, "unit"].dropna()} - {""} for m in metrics}
    one = {m: next(iter(units)) for m, units in said.items() if len(units) == 1}
    return {m: unit for m, unit in one.items() if unit not in UNITS_BEFORE.values()}


def _advice(
    contrasts: Mapping[str, Judged],
    scatter: Scatter,
    variance: Mapping[str, Components | None],
    of_differences: Mapping[str, Components | None],
) -> tuple[str, ...]:
    """What to run next; what is said of several metrics stands once."""
    pairs: list[tuple[str, str]] = []
    measured: dict[str, tuple[Components | None, str]] = {}
    for metric, judgement in contrasts.items():
        sampled = scatter.sampled(metric)
        sentences = advice.which_seeds(of_differences[metric], sampled) if judgement.open else []
        pairs += [(metric, sentence) for sentence in sentences]
        measured[metric] = variance[metric], "raise --samples" if sampled else "raise nll_evals (--axis nll_evals=N)"
    settle = advice.all_to_settle({metric: judgement.open for metric, judgement in contrasts.items() if judgement.open})
    return (*settle, *advice.merged(pairs), *advice.all_measuring(measured))


def _in_main_table(metric: str) -> bool:
    """Whether a metric, by its own name, stands in the main table."""
    return metric not in HIDDEN and not metric.endswith("-debiased")


def _interval(values: Sequence[float]) -> Interval:
    """The interval of a cell; none where its numbers are the same on every seed, for it would claim to know them."""
    interval = t_interval(values)
    same = max(values) - min(values) <= ROUNDING * max(map(abs, values))
    return replace(interval, low=None, high=None) if same else interval


def by_seed(frame: pd.DataFrame, metric: str, cell: str) -> dict[int, float]:
    """Return train seed -> value, sample seeds averaged inside; only train seeds whose every sample is done."""
    by_metric = numbers(frame[(frame["metric"] == metric) & (frame["cell"] == cell)])
    return by_metric.get(metric, {}).get(cell, Numbers()).values


def _by_class(
    records: Records, of_one_class: Mapping[str, tuple[str, int]], found: Mapping[str, Mapping[str, Numbers]]
) -> dict[str, dict[str, dict[int, tuple[float, float]]]]:
    """Return metric -> cell, or real images -> class -> (mean over train seeds, mean number of samples)."""
    frame, own = records.results, records.originals
    out: dict[str, dict[str, dict[int, tuple[float, float]]]] = {}
    for metric, one in of_one_class.items():
        cells = found.get(metric, {})
        counts = frame[frame["metric"] == metric].groupby("cell")["n"].mean()
        # Of several studies, a metric that one of them measured otherwise keeps its own name behind the class.
        name = one[0] + metric.removeprefix(own.get(metric, metric))
        for cell, numbers_of_cell in cells.items():
            values = list(numbers_of_cell.values.values())
            if values:
                mean = sum(values) / len(values)
                out.setdefault(name, {}).setdefault(cell, {})[one[1]] = (mean, float(counts[cell]))
    both_ways = len({ref.mirrored for ref in records.references if ref.record.heldout_by_class}) > 1
    for ref in records.references:
        for name, column, label, value in ref.by_class():
            real = f"{name}, to mirror images too" if both_ways and ref.mirrored and name == HELD_OUT else name
            if column in out:
                before = {m: cells.get(real, {}).get(label) for m, cells in out.items()}
                # A row has one number of images: those of a study with other images are a row of their own.
                other = any(
                    v is not None and (v[1] != value[1] or (m == column and v != value)) for m, v in before.items()
                )
                out[column].setdefault(f"{real} ({ref.study})" if other else real, {})[label] = value
    return out


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


def _level(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


def _references(records: Records, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return row -> metric -> value; where two studies have other numbers in one column, a row each."""
    out: dict[str, dict[str, float]] = {}

    def put(name: str, metric: str, value: float, study: str) -> None:
        row = out.setdefault(name, {})
        if metric in metrics and row.get(metric, value) != value:
            row = out.setdefault(f"{name} ({study})", {})
        row[metric] = value

    for ref in records.references:
        real = f"real, {'test' if ref.record.split == 'train' else 'train'} n={ref.record.n_floor}"
        for metric, value in ref.record.floors.items():
            put(real, metric, value, ref.study)
        for name in UNLEARNED:
            for metric, value in ref.record.unlearned.get(name, {}).items():
                put(f"{name} n={ref.record.n_unlearned}", metric, value, ref.study)
        told = ref.record
        for under, models in (
            (ref.baselines_under, told.baselines),
            (ref.given_class_under, told.baselines_given_class),
        ):
            if under is not None and under in metrics:
                for name, bits in models.items():
                    put(name, under, bits, ref.study)
    return out
