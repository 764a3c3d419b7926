"""What of a study is shown: which metrics, in which order, as rows or as a pivot.

Conditions narrow the records before anything is computed, so that the family of Holm is what is printed; the notes say
so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.report.forms import TABLES
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.axes import setting_text, settings_of, varying_axes
from ddpmkit.report.read.conditions import select
from ddpmkit.report.read.frames import Records
from ddpmkit.report.show.numbers import decimals, fitted, interval_text
from ddpmkit.report.show.table import Table
from ddpmkit.report.show.tables import all_tables


@dataclass(frozen=True)
class View:
    """What is asked for on top of the whole study.

    Attributes:
        where: conditions ``axis=value`` or ``axis!=value``; ``*`` is anything, ``a,b`` either; all must hold.
        metrics: the metrics shown, in this order; all by default.
        sort: a metric to order the cells by, ``cell`` for their names; a leading ``-`` turns it round.
        rows: axis down the side of a pivot.
        cols: axis along the top of a pivot.
        tables: names of the tables shown, in this order; all by default.
    """

    where: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    sort: str | None = None
    rows: str | None = None
    cols: str | None = None
    tables: tuple[str, ...] = ()


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
        if summary.baseline not in (c["label"] for c in select(records, view.where).plan["cells"]):
            conditions += ", and the baseline"
        count = f"{len(summary.cells)} of {total or len(summary.cells)} cells"
        notes.insert(0, f"Shown: {count}, {conditions}; Holm is over the contrasts shown.")
    metrics = tuple(dict.fromkeys(m for asked in view.metrics for m in named(records, summary, asked)))
    metrics = metrics or summary.metrics
    cells = order(summary, view.sort)
    narrowed_summary = replace(
        summary,
        notes=tuple(notes),
        metrics=metrics,
        cells=cells,
        intervals={m: _in_order(summary.intervals[m], cells) for m in metrics},
        differences={m: _in_order(summary.differences[m], cells) for m in metrics},
        values={m: _in_order(summary.values[m], cells) for m in metrics if m in summary.values},
        splits={m: _in_order(summary.splits[m], cells) for m in metrics if m in summary.splits},
    )
    if view.rows is None and view.cols is None:
        return narrowed_summary, _chosen(all_tables(narrowed_summary), view.tables)
    if view.tables:
        raise DdpmkitError("a pivot has no other tables", "either --table, or --rows and --cols")
    return narrowed_summary, pivot(records, narrowed_summary, view.rows, view.cols)


def named(records: Records, summary: Summary, asked: str) -> tuple[str, ...]:
    """Return the columns that a name asks for: that of the name, else all of the metric, as ``fd`` of any features.

    Raises:
        DdpmkitError: for a name of neither.
    """
    known = list(summary.metrics)
    if asked in known:
        return (asked,)
    word = asked.lower()
    told = {r.record.names[word] for r in records.references if word in (r.record.names or {})}
    own = {m: summary.originals.get(m, m) for m in known}
    found = tuple(
        m for m, name in own.items() if name in told or word in (name.lower(), name.lower().partition("-")[0])
    )
    if not found:
        raise DdpmkitError(f"unknown metric '{asked}'{did_you_mean(asked, known)}", f"metrics: {', '.join(known)}")
    return found


def _chosen(tables: list[Table], names: Sequence[str]) -> list[Table]:
    """The tables that were asked for by name, in that order; all where none was. Details are shown then too."""
    if not names:
        return tables
    by_name = {table.name: table for table in tables}
    for name in names:
        if name not in by_name:
            known = f"{did_you_mean(name, TABLES)}" if name not in TABLES else ": there is no number in it here"
            raise DdpmkitError(f"no table '{name}'{known}", f"tables: {', '.join(by_name)}")
    return [replace(by_name[name], detail=False, asked=True) for name in dict.fromkeys(names)]


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
