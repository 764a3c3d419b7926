"""What of a study is shown: which metrics, in which order, as rows or as a pivot.

Conditions narrow the records before anything is computed, so that the family of Holm is what is printed; the notes say
so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.axes import setting_text, settings_of, varying_axes
from ddpmkit.report.read.frames import Records
from ddpmkit.report.show.numbers import decimals, fitted, interval_text
from ddpmkit.report.show.tables import Table, all_tables


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


def shown(records: Records, summary: Summary, view: View, *, total: int | None = None) -> tuple[Summary, list[Table]]:
    """Apply metrics, order and pivot, and return the summary as it is shown with its tables.

    Args:
        records: What the summary was made of, conditions already applied.
        summary: From :func:`ddpmkit.report.judge.summarise.summarise`.
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
    narrowed_summary = replace(
        summary,
        notes=tuple(notes),
        metrics=metrics,
        cells=cells,
        intervals={m: _in_order(summary.intervals[m], cells) for m in metrics},
        differences={m: _in_order(summary.differences[m], cells) for m in metrics},
        values={m: _in_order(summary.values[m], cells) for m in metrics if m in summary.values},
    )
    if view.rows is None and view.cols is None:
        return narrowed_summary, all_tables(narrowed_summary)
    return narrowed_summary, pivot(records, narrowed_summary, view.rows, view.cols)


def order(summary: Summary, sort: str | None) -> tuple[str, ...]:
    """Return the cells in the order asked for; those without a value come last.

    Raises:
        DdpmkitError: for an unknown metric.
    """
    if sort is None:
        return summary.cells
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    if name == "cell":
        return tuple(sorted(summary.cells, reverse=descending))
    if name not in summary.intervals:
        known = ["cell", *summary.metrics]
        raise DdpmkitError(f"can't sort by '{name}'{did_you_mean(name, known)}", f"one of {', '.join(known)}")
    means = {c: i.mean for c, i in summary.intervals[name].items()}
    last = [c for c in summary.cells if c not in means]
    return (*sorted(means, key=lambda c: means[c], reverse=descending), *last)


def pivot(records: Records, summary: Summary, rows: str | None, cols: str | None) -> list[Table]:
    """One table a metric, one axis down and one along; where other axes vary, one table for each of their points.

    Raises:
        DdpmkitError: for an axis that the study does not vary, or one axis where several could be the other.
    """
    axes = varying_axes(records)
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
    cells = {c["label"]: settings_of(c) for c in records.plan["cells"]}
    out = []
    for metric in summary.metrics:
        digits = decimals(list(summary.intervals[metric].values()))
        for fixed in dict.fromkeys(tuple(setting_text(s.get(a)) for a in rest) for s in cells.values()):
            suffix = "".join(f", {a} {v}" for a, v in zip(rest, fixed, strict=True))
            here = {
                (setting_text(s.get(rows)), setting_text(s.get(cols))): c
                for c, s in cells.items()
                if tuple(setting_text(s.get(a)) for a in rest) == fixed
            }
            downs, alongs = list(dict.fromkeys(k[0] for k in here)), list(dict.fromkeys(k[1] for k in here))
            body = [
                (down, *(_slot(summary, metric, here.get((down, along)), digits) for along in alongs)) for down in downs
            ]
            unit = summary.unit(metric) or (" bits/dim" if metric.startswith("NLL") else "")
            title = f"study {summary.study}: {metric}{unit}, {rows} down, {cols} along{suffix}"
            out.append(Table(title, (rows, *alongs), tuple(body)))
    return out


def _slot(summary: Summary, metric: str, cell: str | None, digits: int) -> str:
    if cell is None:
        return ""
    contrast = summary.differences[metric].get(cell)
    verdict = "baseline" if cell == summary.baseline else contrast.verdict if contrast else ""
    interval = summary.intervals[metric].get(cell)
    text = "-" if interval is None else interval_text(interval, fitted(interval, digits))
    return f"{text} {verdict}" if verdict else text


def _in_order(by_cell: Mapping[str, Any], cells: Sequence[str]) -> dict[str, Any]:
    return {c: by_cell[c] for c in cells if c in by_cell}
