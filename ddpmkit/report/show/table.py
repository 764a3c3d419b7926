"""A table of text: what a renderer is given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A title, column heads, rows of text, and how many of the last rows are references rather than cells.

    A ``detail`` stands in files alone: on a terminal it would push the verdicts out of sight. ``keys`` are the columns
    that name a row, and ``lead`` those that are read first, where a table is too wide for its page; they stay together.
    ``name`` is what ``--table`` calls it, and ``note`` what must be said of it below; ``asked`` says that it was asked
    for by that name, and is shown whole.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    references: int = 0
    detail: bool = False
    keys: tuple[int, ...] = (0,)
    lead: tuple[int, ...] = ()
    name: str = ""
    note: str = ""
    asked: bool = False
