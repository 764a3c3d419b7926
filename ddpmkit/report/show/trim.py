"""Columns and tables without a number are left out of what is shown, and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ddpmkit.report.forms import MAIN
from ddpmkit.report.show.table import Table

NOTHING = ("", "-")


def trimmed(tables: Sequence[Table]) -> list[Table]:
    """Leave out each column that no row has a text in, and each table that has no number, and count them in notes.

    The main table stays in any case, since it says how many results of a cell there are. Its references stay where a
    column is left that they have a number in.
    """
    kept: list[Table] = []
    gone: list[str] = []
    of_main: list[str] = []
    alike: dict[str, list[Table]] = {}  # what went -> the tables that it went from
    for table in tables:
        if not _has_number(table):
            gone.append(f"{table.title} ({_verdicts(table)})")
            continue
        narrowed, columns = _without_empty(table)
        said = [f"{_count(len(columns), 'column')}, {', '.join(columns)}"] if columns else []
        kept.append(narrowed)
        if table.name == MAIN:
            of_main = said
            kept[-1] = replace(narrowed, note=_note(said) or table.note)
        elif said:
            alike.setdefault(said[0], []).append(table)
    for what, those in alike.items():  # said once, under the first of them
        first = next(i for i, table in enumerate(kept) if table.name == those[0].name)
        kept[first] = replace(kept[first], note=_note([what], those))
    if gone and kept:
        tables_gone = f"{_count(len(gone), 'table')}, {'; '.join(gone)}"
        kept[0] = replace(kept[0], note=_note([*of_main, tables_gone], [] if kept[0].name == MAIN else kept[:1]))
    return kept


def _note(left_out: Sequence[str], tables: Sequence[Table] = ()) -> str:
    """What was left out of the main table, or of some others, in a sentence; nothing where nothing was."""
    if not left_out:
        return ""
    of = f"{', '.join(t.name for t in tables) if len(tables) > 1 else tables[0].title}: " if tables else ""
    said = f"{of}left out for want of a number: {'; '.join(left_out)}".rstrip(".")
    return f"{said[0].upper()}{said[1:]}."


def _has_number(table: Table) -> bool:
    """Whether there is a number where the table's are; the main table is shown without one too."""
    if table.name == MAIN:
        return True
    # Where a table has a column that is read first, the others count for nothing without it.
    looked_at = table.lead[:1] or [i for i in range(len(table.columns)) if i not in table.keys]
    return any(re.search(r"\d", row[i]) for row in table.rows for i in looked_at)


def _verdicts(table: Table) -> str:
    """How many rows there are, by verdict where they have one."""
    rows = len(table.rows)
    if "verdict" not in table.columns:
        return _count(rows, "row")
    counts = Counter(row[table.columns.index("verdict")] for row in table.rows)
    return f"{_count(rows, 'row')}: {', '.join(f'{n} {verdict}' for verdict, n in counts.items())}"


def _without_empty(table: Table) -> tuple[Table, list[str]]:
    """The table without its empty columns, and their names."""
    cells = table.rows[: len(table.rows) - table.references]
    empty = [
        i
        for i in range(len(table.columns))
        if i not in table.keys and i not in table.lead and all(row[i] in NOTHING for row in cells)
    ]
    if not empty or not cells:
        return table, []
    left = [i for i in range(len(table.columns)) if i not in empty]
    place = {old: new for new, old in enumerate(left)}
    others = [i for i in left if i not in table.keys]
    rows = [tuple(row[i] for i in left) for row in cells]
    references = [
        tuple(row[i] for i in left)
        for row in table.rows[len(cells) :]
        if any(row[i] not in NOTHING for i in others)  # what it says stood in a column that is gone
    ]
    narrowed = replace(
        table,
        columns=tuple(table.columns[i] for i in left),
        rows=(*rows, *references),
        references=len(references),
        keys=tuple(place[i] for i in table.keys),
        lead=tuple(place[i] for i in table.lead),
    )
    return narrowed, [table.columns[i] for i in empty]


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
