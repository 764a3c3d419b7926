"""Tables in a terminal, and as tab-separated rows where stdout is no terminal."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.tables import Table, all_tables, remarks
from ddpmkit.text import inert
from ddpmkit.text.layout import print_line, print_table, screen, wrap
from ddpmkit.text.plain import plain

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"better": "green", "worse": "red"}


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
    tables = all_tables(summary) if shown is None else shown
    for table in (t for t in tables if not t.detail):
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
    for note in remarks(summary):
        lines = wrap(plain(inert(note), console.encoding), console.width - 4)
        for indent, line in zip(("  ", *["    "] * len(lines)), lines, strict=False):
            print_line(console, indent + line, "dim")


def _style(table: Table, row: int) -> str:
    return "dim" if row >= len(table.rows) - table.references else STYLES.get(table.rows[row][-1], "")


def to_tsv(summary: Summary, shown: Sequence[Table] | None = None) -> str:
    """Tab-separated rows, one table after another, for pipes."""
    out = []
    for table in all_tables(summary) if shown is None else shown:
        out += ["\t".join(inert(c) for c in row) for row in (table.columns, *table.rows)] + [""]
    return "\n".join(out)
