"""How a table looks: in a terminal, in a pipe, as Markdown, as JSON. The digits are the same everywhere."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

from ddpmkit.report.tables import Summary, Table, contrast_table, main_table
from ddpmkit.text import inert

if TYPE_CHECKING:
    from rich.console import Console


def tables(summary: Summary) -> list[Table]:
    """The report's tables, in order."""
    second = contrast_table(summary)
    return [main_table(summary), *([second] if second else [])]


def to_terminal(summary: Summary, console: Console | None = None) -> None:
    """Print the tables and the notes with rich, or as tab-separated rows where stdout is no terminal."""
    if console is None and not sys.stdout.isatty():
        print(to_tsv(summary), end="")
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console as RichConsole
    from rich.padding import Padding
    from rich.table import Table as RichTable
    from rich.text import Text

    console = console or RichConsole()
    for table in tables(summary):
        rich = RichTable(
            title=Text(inert(table.title)), title_justify="left", box=SIMPLE_HEAD, title_style="bold", padding=(0, 1)
        )
        for index, head in enumerate(table.columns):
            rich.add_column(
                Text(inert(head)), justify="left" if index == 0 else "right", overflow="fold", no_wrap=index > 0
            )
        split, narrow = len(table.rows) - table.references, _width(table) > console.width
        for index, row in enumerate(table.rows):
            style = "dim" if index >= split else _verdict_style(row[-1])
            # Where the line is too short the interval goes below its mean, all of them alike.
            shown = (inert(c).replace(" [", "\n[") if narrow else inert(c) for c in row)
            rich.add_row(*(Text(c) for c in shown), style=style, end_section=index == split - 1)
        console.print(rich)
    for note in summary.notes:
        console.print(Padding(Text(inert(note), style="dim"), (0, 0, 0, 2)))


def to_tsv(summary: Summary) -> str:
    """Tab-separated rows, one table after another, for pipes."""
    out = []
    for table in tables(summary):
        out += ["\t".join(inert(c) for c in row) for row in (table.columns, *table.rows)] + [""]
    return "\n".join(out)


def to_markdown(summary: Summary) -> str:
    """The tables and notes as Markdown."""
    out = []
    for table in tables(summary):
        out += [f"**{_md(table.title)}**", ""]
        out += ["| " + " | ".join(_md(c) for c in table.columns) + " |"]
        out += ["|" + "|".join(":--" if i == 0 else "--:" for i in range(len(table.columns))) + "|"]
        out += ["| " + " | ".join(_md(c) for c in row) + " |" for row in table.rows]
        out += [""]
    out += [f"- {_md(note)}" for note in summary.notes]
    return "\n".join(out) + "\n"


def to_json(summary: Summary) -> str:
    """Every number of the report."""
    return json.dumps(_finite(summary.json()), indent=1) + "\n"


def _md(text: str) -> str:
    """Escape what Markdown or HTML would act on."""
    text = inert(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|\[\]!#~])", r"\\\1", text)


def _width(table: Table) -> int:
    """Columns that a table needs to stand without a broken line."""
    lines = (table.columns, *table.rows)
    return sum(max(len(line[i]) for line in lines) + 2 for i in range(len(table.columns))) + len(table.columns) + 1


def _verdict_style(text: str) -> str:
    return {"better": "green", "worse": "red"}.get(text, "")


def _finite(value: object) -> object:
    """JSON has no NaN: what is not a number becomes null."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
