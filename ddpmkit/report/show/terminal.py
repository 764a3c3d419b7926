"""Tables in a terminal, and as tab-separated rows where stdout is no terminal."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.table import Table
from ddpmkit.report.show.tables import all_tables, remarks
from ddpmkit.text import inert
from ddpmkit.text.layout import print_line, print_table, screen, wrap
from ddpmkit.text.plain import plain

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"better": "green", "worse": "red", "agrees": "green", "disagrees": "red"}
LONG = 40  # rows beyond which what is not settled is counted, and not listed
OPEN = ("inconclusive", "one result", "single seed", "no common seed", "not comparable", "no number")


def to_terminal(summary: Summary, console: Console | None = None, shown: Sequence[Table] | None = None) -> None:
    """Print the tables and the notes with rich, or as tab-separated rows where stdout is no terminal.

    Args:
        summary: What the report says.
        console: Where to print; stdout by default.
        shown: Other tables than the usual ones, such as a pivot.
    """
    if console is None and not sys.stdout.isatty():
        print(to_tsv(summary, shown), end="")
        return
    console = console or screen()
    if summary.caution:
        for line in wrap(plain(inert(summary.caution), console.encoding), console.width):
            print_line(console, line, "bold")
        print_line(console, "", "")
    tables = [_brief(t) for t in (all_tables(summary) if shown is None else shown) if not t.detail]
    for table in tables:
        if not table.rows:
            continue
        print_table(
            console,
            table.title,
            table.columns,
            table.rows,
            keys=table.keys,
            lead=table.lead,
            right=True,
            references=table.references,
            style=functools.partial(_style, table),
        )
    for note in remarks(summary, tables):
        lines = wrap(plain(inert(note), console.encoding), console.width - 4)
        for indent, line in zip(("  ", *["    "] * len(lines)), lines, strict=False):
            print_line(console, indent + line, "dim")


def _brief(table: Table) -> Table:
    """A long table of contrasts without those that settle nothing, and what says how many there are."""
    if len(table.rows) <= LONG or table.asked or "verdict" not in table.columns:
        return table
    column = table.columns.index("verdict")
    rows = tuple(row for row in table.rows if row[column] not in OPEN)
    counts = Counter(row[column] for row in table.rows if row[column] in OPEN)
    if not counts:
        return table
    listed = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    note = (
        f"{table.title}: {len(rows)} of {len(table.rows)} are listed; {listed} are not: --table {table.name} has all."
    )
    note = note[0].upper() + note[1:]
    return replace(table, rows=rows, note=" ".join(filter(None, (table.note, note))))


def _style(table: Table, row: int) -> str:
    return "dim" if row >= len(table.rows) - table.references else STYLES.get(table.rows[row][-1], "")


def to_tsv(summary: Summary, shown: Sequence[Table] | None = None) -> str:
    """Tab-separated rows for pipes: one table after another, each under its title, behind a #."""
    out = [f"# {inert(summary.caution)}", ""] if summary.caution else []
    for table in all_tables(summary) if shown is None else shown:
        out += [f"# {inert(table.title)}"]
        out += ["\t".join(inert(c) for c in row) for row in (table.columns, *table.rows)] + [""]
    return "\n".join(out)
