"""Tables in a terminal, and as tab-separated rows where stdout is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddpmkit.report.tables import Summary, Table
from ddpmkit.report.views import remarks, tables
from ddpmkit.text import inert

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
    from rich.box import SIMPLE_HEAD
    from rich.console import Console as RichConsole
    from rich.padding import Padding
    from rich.table import Table as RichTable
    from rich.text import Text

    console = console or RichConsole()
    chosen = tables(summary) if shown is None else shown
    for table in (t for t in chosen if not t.detail):
        rich = RichTable(
            title=Text(inert(table.title)), title_justify="left", box=SIMPLE_HEAD, title_style="bold", padding=(0, 1)
        )
        for index, head in enumerate(table.columns):
            rich.add_column(
                Text(inert(head)), justify="left" if index == 0 else "right", overflow="fold", no_wrap=index > 0
            )
        split, narrow = len(table.rows) - table.references, _width(table) > console.width
        for index, row in enumerate(table.rows):
            style = "dim" if index >= split else STYLES.get(row[-1], "")
            # Where the line is too short the interval goes below its mean, all of them alike.
            cells = (inert(c).replace(" [", "\n[") if narrow else inert(c) for c in row)
            rich.add_row(*(Text(c) for c in cells), style=style, end_section=index == split - 1)
        console.print(rich)
    for note in remarks(summary):
        console.print(Padding(Text(inert(note), style="dim"), (0, 0, 0, 2)))


def to_tsv(summary: Summary, shown: Sequence[Table] | None = None) -> str:
    """Tab-separated rows, one table after another, for pipes."""
    out = []
    for table in tables(summary) if shown is None else shown:
        out += ["\t".join(inert(c) for c in row) for row in (table.columns, *table.rows)] + [""]
    return "\n".join(out)


def _width(table: Table) -> int:
    """Columns that a table needs to stand without a broken line."""
    lines = (table.columns, *table.rows)
    return sum(max(len(line[i]) for line in lines) + 2 for i in range(len(table.columns))) + len(table.columns) + 1
