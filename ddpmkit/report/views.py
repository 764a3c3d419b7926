"""What of a study is shown: which cells and metrics, in which order, as rows or as a pivot, and several studies as one.

A view narrows the records before anything is computed, so that the family of Holm is what is printed; the notes say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.report.fairness import meaning
from ddpmkit.report.frames import Records
from ddpmkit.report.metrics import BASELINE_METRIC
from ddpmkit.report.numbers import decimals, fitted, interval_text
from ddpmkit.report.tables import Summary, Table, all_tables


@dataclass(frozen=True)
class View:
    """What is asked for on top of the whole study.

    Attributes:
        where: conditions ``axis=value`` or ``axis!=value``; a value may hold ``*``; all of them must hold.
        metrics: the metrics shown, in this order; all by default.
        sort: a metric to order the cells by, ``cell`` for their names; a leading ``-`` turns it round.
        rows: axis down the side of a pivot.
        cols: axis along the top of a pivot.
    """

    where: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    sort: str | None = None
    rows: str | None = None
    cols: str | None = None


def tables(summary: Summary) -> list[Table]:
    """The report's tables, in order."""
    return all_tables(summary)


def remarks(summary: Summary) -> list[str]:
    """What stands below the tables: what one must know to read them, then what to run next."""
    return [*summary.notes, *(f"Next: {text}" for text in summary.advice)]


def select(records: Records, where: Sequence[str]) -> Records:
    """Keep the cells for which every condition holds.

    Raises:
        DdpmkitError: for a condition that can't be read, an unknown axis, or when no cell is left.
    """
    if not where:
        return records
    tests = [_condition(text) for text in where]
    known = sorted({"cell"} | {k for c in records.plan["cells"] for k in c.get("settings", {})})
    for axis, _, _ in tests:
        if axis not in known:
            raise DdpmkitError(f"unknown axis '{axis}'{did_you_mean(axis, known)}", f"axes: {', '.join(known)}")
    kept = [c for c in records.plan["cells"] if all(_holds(c, *t) for t in tests)]
    if not kept:
        varying = _axes(records) or ["cell"]
        said = "; ".join(f"{a}: {', '.join(_values(records, a))}" for a in varying)
        raise DdpmkitError(f"no cell has {' and '.join(where)}", said)
    labels = {c["label"] for c in kept}
    plan = {
        **records.plan,
        "cells": kept,
        "results": [r for r in records.plan["results"] if r["cell"] in labels],
    }
    frame = records.results[records.results["cell"].isin(labels)].reset_index(drop=True)
    return replace(records, plan=plan, results=frame)


def shown(records: Records, summary: Summary, view: View, *, total: int | None = None) -> tuple[Summary, list[Table]]:
    """Apply metrics, order and pivot, and return the summary as it is shown with its tables.

    Args:
        records: What the summary was made of, conditions already applied.
        summary: From :func:`ddpmkit.report.tables.summarise`.
        view: What is asked for.
        total: Number of cells before the conditions; the notes say how many are left.

    Raises:
        DdpmkitError: for an unknown metric or axis, or a pivot whose axes are not said.
    """
    notes = list(summary.notes)
    if view.where:
        conditions = " and ".join(view.where)
        count = f"{len(summary.cells)} of {total or len(summary.cells)} cells"
        notes.insert(0, f"Shown: {count}, {conditions}; Holm is over the contrasts shown.")
    known = list(summary.metrics)
    for metric in view.metrics:
        if metric not in known:
            raise DdpmkitError(
                f"unknown metric '{metric}'{did_you_mean(metric, known)}", f"metrics: {', '.join(known)}"
            )
    metrics = tuple(dict.fromkeys(view.metrics)) or summary.metrics
    cells = order(summary, view.sort)
    found = replace(
        summary,
        notes=tuple(notes),
        metrics=metrics,
        cells=cells,
        intervals={m: _in_order(summary.intervals[m], cells) for m in metrics},
        differences={m: _in_order(summary.differences[m], cells) for m in metrics},
        values={m: _in_order(summary.values[m], cells) for m in metrics if m in summary.values},
    )
    if view.rows is None and view.cols is None:
        return found, tables(found)
    return found, pivot(records, found, view.rows, view.cols)


def order(summary: Summary, sort: str | None) -> tuple[str, ...]:
    """Return the cells in the order asked for; those without a value come last.

    Raises:
        DdpmkitError: for an unknown metric.
    """
    if sort is None:
        return summary.cells
    name, turned = sort.removeprefix("-"), sort.startswith("-")
    if name == "cell":
        return tuple(sorted(summary.cells, reverse=turned))
    if name not in summary.intervals:
        known = ["cell", *summary.metrics]
        raise DdpmkitError(f"can't sort by '{name}'{did_you_mean(name, known)}", f"one of {', '.join(known)}")
    means = {c: i.mean for c, i in summary.intervals[name].items()}
    last = [c for c in summary.cells if c not in means]
    return (*sorted(means, key=lambda c: means[c], reverse=turned), *last)


def pivot(records: Records, summary: Summary, rows: str | None, cols: str | None) -> list[Table]:
    """One table a metric, one axis down and one along; where other axes vary, one table for each of their points.

    Raises:
        DdpmkitError: for an axis that the study does not vary, or one axis where several could be the other.
    """
    axes = _axes(records)
    for flag, axis in (("--rows", rows), ("--cols", cols)):
        if axis is not None and axis not in axes:
            raise DdpmkitError(
                f"{flag}: '{axis}' does not vary in what is shown{did_you_mean(axis, axes)}",
                f"axes: {', '.join(axes) or 'none'}",
            )
    rest = [a for a in axes if a not in (rows, cols)]
    if rows is None or cols is None:
        if len(rest) != 1:
            raise DdpmkitError(
                f"a pivot needs two axes, and {'several' if rest else 'no'} others vary",
                f"ddpmkit report --rows A --cols B, of {', '.join(axes) or 'no axis'}",
            )
        rows, cols = rows or rest[0], cols or rest[0]
    if rows == cols:
        raise DdpmkitError("--rows and --cols are the same axis", f"axes: {', '.join(axes)}")
    rest = [a for a in axes if a not in (rows, cols)]
    cells = {c["label"]: _settings(c) for c in records.plan["cells"]}
    out = []
    for metric in summary.metrics:
        digits = decimals(list(summary.intervals[metric].values()))
        for fixed in dict.fromkeys(tuple(text(s.get(a)) for a in rest) for s in cells.values()):
            said = "".join(f", {a} {v}" for a, v in zip(rest, fixed, strict=True))
            here = {
                (text(s.get(rows)), text(s.get(cols))): c
                for c, s in cells.items()
                if tuple(text(s.get(a)) for a in rest) == fixed
            }
            downs, alongs = list(dict.fromkeys(k[0] for k in here)), list(dict.fromkeys(k[1] for k in here))
            body = [
                (down, *(_slot(summary, metric, here.get((down, along)), digits) for along in alongs)) for down in downs
            ]
            unit = " bits/dim" if metric.startswith("NLL") else ""
            title = f"study {summary.study}: {metric}{unit}, {rows} down, {cols} along{said}"
            out.append(Table(title, (rows, *alongs), tuple(body)))
    return out


def varying(records: Records) -> dict[str, list[str]]:
    """Return the axes that vary among the cells, each with its values in order."""
    return {a: _values(records, a) for a in _axes(records)}


def compare(studies: Sequence[Records]) -> Records:
    """Put several studies side by side: a cell is named ``study: cell``, the first study's first is the baseline.

    A cell that studies share, stage for stage, stands once. A metric that means something else in a later study
    (another N, reference, extractor or decoder) becomes a column of its own, and nothing is compared across; floors and
    baselines go with it. What else the studies differ in is said in one note.
    """
    if len(studies) == 1:
        return studies[0]
    names = _names(studies)
    cells: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    frames: list[pd.DataFrame] = []
    references: list[dict[str, Any]] = []
    known: dict[str, set[str]] = {}
    seen: dict[tuple[Any, ...], str] = {}
    twice: list[str] = []
    originals: dict[str, str] = {}
    for name, records in zip(names, studies, strict=True):
        frame = records.results.copy()
        found = _meanings(frame)
        other = {
            m: f"{m} ({name})" for m, said in found.items() if m in known and said and known[m] and said != known[m]
        }
        for m, said in found.items():
            known[m] = known.get(m) or said
        originals |= {new: old for old, new in other.items()}
        labels: dict[str, str] = {}
        for cell in records.plan["cells"]:
            mine = [r for r in records.plan["results"] if r["cell"] == cell["label"]]
            key = tuple(sorted((r["train"], r["sample"] or "", r["nll"] or "") for r in mine))
            label = f"{name}: {cell['label']}"
            if key and key in seen:
                twice.append(f"{label} is {seen[key]}")
                continue
            seen[key] = labels[cell["label"]] = label
            # `out` says whose store holds the stages, since each study may have its own.
            # The study is an axis of its own: two cells of one setting are not one point.
            at = {"study": name, **cell.get("settings", {})}
            cells.append({**cell, "settings": at, "label": label, "slug": f"{name}-{cell.get('slug', cell['label'])}"})
            results += [{**r, "cell": label, "out": str(r.get("out", records.folder.parent.parent))} for r in mine]
        frame = frame[frame["cell"].isin(labels)]
        frames.append(frame.assign(cell=frame["cell"].map(labels), metric=frame["metric"].replace(other)))
        references += [_renamed(ref, other, found, name) for ref in records.references]
    settings = [c["settings"] for c in cells]
    axes = {
        a: list(dict.fromkeys(s[a] for s in settings if a in s))
        for a in dict.fromkeys(a for s in settings for a in s)
        if len({text(s.get(a)) for s in settings}) > 1
    }
    seeds = sorted({s for r in studies for s in r.plan["grid"]["train_seeds"]})
    first = studies[0].plan
    plan = {
        **first,
        "study": " against ".join(names),
        "cells": [{**c, "point": {a: c["settings"][a] for a in axes if a in c["settings"]}} for c in cells],
        "results": results,
        "stages": list({s["id"]: s for r in studies for s in r.plan["stages"]}.values()),
        "grid": {**first["grid"], "train_seeds": seeds, "axes": axes},
        "excluded": [e for r in studies for e in r.plan.get("excluded", ())],
        "same": twice,
        "differ": _differing(dict(zip(names, studies, strict=True))),
    }
    problems = list(dict.fromkeys(p for r in studies for p in r.problems))
    mixed = tuple(dict.fromkeys(m for r in studies for m in r.mixed))
    return Records(
        studies[0].folder, plan, pd.concat(frames, ignore_index=True), references, problems, mixed, (), originals
    )


def out_of(records: Records, result: Mapping[str, Any]) -> Path:
    """Return the results folder whose store holds a result's stages."""
    return Path(result.get("out", records.folder.parent.parent))


def text(value: object) -> str:
    """Write a setting as one types it."""
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _renamed(
    reference: Mapping[str, Any], names: Mapping[str, str], measured: Mapping[str, Any], study: str
) -> dict[str, Any]:
    """A reference whose floors and baselines stand under the names that its own study's metrics have here.

    What a study did not measure has no column of its own, and none of another study's.
    """
    floors = {names.get(m, m): v for m, v in reference.get("floors", {}).items() if measured.get(m)}
    under = names.get(BASELINE_METRIC, BASELINE_METRIC) if measured.get(BASELINE_METRIC) else None
    return {**reference, "floors": floors, "baselines_under": under, "study": study}


def _differing(studies: Mapping[str, Records]) -> list[str]:
    """Say each setting whose values are not the same in all studies, and the values by study."""
    values: dict[str, dict[str, list[str]]] = {}
    for name, records in studies.items():
        for cell in records.plan["cells"]:
            for setting, value in cell.get("settings", {}).items():
                seen = values.setdefault(setting, {}).setdefault(name, [])
                if text(value) not in seen:
                    seen.append(text(value))
        for seeds in ("train_seeds", "sample_seeds"):
            found = records.plan["grid"].get(seeds, ())
            values.setdefault(seeds, {})[name] = [", ".join(map(str, found))]
        for key, said in (("reference", "data"), ("levels", "levels"), ("split", "split"), ("features", "extractor")):
            told = dict.fromkeys(str(r[key])[:8] for r in records.references if r.get(key))
            values.setdefault(said, {})[name] = list(told)
    first = [s for s in ("train_steps",) if s in values]
    out = []
    for setting in (*first, *(s for s in values if s not in first)):
        by = [values[setting].get(name, ["not set"]) for name in studies]
        if len({tuple(sorted(v)) for v in by}) > 1:
            out.append(f"{setting} " + " / ".join(", ".join(v) or "none" for v in by))
    return out


def _meanings(frame: pd.DataFrame) -> dict[str, set[str]]:
    """Metric -> what its numbers mean, by the rule of :mod:`ddpmkit.report.fairness`."""
    out: dict[str, set[str]] = {}
    for metric, group in frame.groupby("metric", sort=False):
        out[str(metric)] = {meaning(d, None)[0] for d in group["definition"].dropna()} - {""}
    return out


def _names(studies: Sequence[Records]) -> list[str]:
    """Names that tell the studies apart; two of one name are told apart by their results folders."""
    names = [r.name for r in studies]
    for i, r in enumerate(studies):
        if names.count(r.name) > 1:
            names[i] = f"{r.folder.parent.parent.name}/{r.name}"
    return [n if names.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(names)]


def _condition(condition: str) -> tuple[str, str, bool]:
    """Read ``axis=value`` or ``axis!=value`` into axis, value, and whether it is to be equal."""
    axis, eq, value = condition.partition("=")
    if not eq or not axis.strip("!"):
        raise DdpmkitError(f"--where '{condition}': expected axis=value", "as in --where schedule=cosine")
    return axis.removesuffix("!").strip().replace("-", "_"), value.strip(), not axis.endswith("!")


def _holds(cell: Mapping[str, Any], axis: str, value: str, equal: bool) -> bool:
    mine = text(_settings(cell).get(axis))
    same = mine == value or fnmatchcase(mine, value) or _same_number(mine, value)
    return same == equal


def _same_number(a: str, b: str) -> bool:
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-12)
    except ValueError:
        return False


def _settings(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {**cell.get("settings", {}), "cell": cell["label"]}


def _axes(records: Records) -> list[str]:
    """The settings that differ among the cells shown."""
    cells = [c.get("settings", {}) for c in records.plan["cells"]]
    return [a for a in (cells[0] if cells else {}) if len({text(s.get(a)) for s in cells}) > 1]


def _values(records: Records, axis: str) -> list[str]:
    return list(dict.fromkeys(text(_settings(c).get(axis)) for c in records.plan["cells"]))


def _slot(summary: Summary, metric: str, cell: str | None, digits: int) -> str:
    if cell is None:
        return ""
    contrast = summary.differences[metric].get(cell)
    verdict = "baseline" if cell == summary.baseline else contrast.verdict if contrast else ""
    found = summary.intervals[metric].get(cell)
    said = "-" if found is None else interval_text(found, fitted(found, digits))
    return f"{said} {verdict}" if verdict else said


def _in_order(by_cell: Mapping[str, Any], cells: Sequence[str]) -> dict[str, Any]:
    return {c: by_cell[c] for c in cells if c in by_cell}
