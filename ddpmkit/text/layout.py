"""A table of text in a terminal of any width: nothing is cut, and every row keeps its name.

A table that is too wide has its prose wrapped between words; then its columns go into further tables below, each with
the columns that name the row; and where a name and one column do not fit, or that is shorter, every row becomes a block
of lines under its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit.text import inert
from ddpmkit.text.plain import plain

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
INDENT = 2
NOTHING = ("", "-")  # what says nothing of a row
READABLE = 20  # columns that prose is not squeezed below


@dataclass(frozen=True)
class Line:
    """One line: its text, and the row of the table that it shows; None for heads, rules and blank lines."""

    text: str
    row: int | None = None


def screen() -> Console:
    """Return a console on stdout, as wide as COLUMNS says, or else as the terminal is."""
    import shutil

    from rich.console import Console

    # Left to itself, rich takes 80 columns for a dumb terminal, whatever COLUMNS says.
    width, height = shutil.get_terminal_size()
    return Console(width=width, height=height)


def print_table(
    console: Console,
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    keys: Sequence[int] = (0,),
    lead: Sequence[int] = (),
    prose: Sequence[int] = (),
    right: bool = False,
    references: int = 0,
    style: Callable[[int], str] = lambda _: "",
) -> None:
    """Print a table and a blank line as :func:`lay_out` lays it out; ``style`` gives the look of a row by its index."""

    def shown_as(texts: Sequence[str]) -> list[str]:
        return [plain(inert(text), console.encoding) for text in texts]

    for text in wrap(shown_as([title])[0], console.width):
        print_line(console, text, "bold")
    lines = lay_out(
        shown_as(heads),
        [shown_as(row) for row in rows],
        console.width,
        keys=keys,
        lead=lead,
        prose=prose,
        right=right,
        references=references,
    )
    for line in lines:
        print_line(console, line.text, "" if line.row is None else style(line.row))
    print_line(console, "")


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print one line as it is; a console neither wraps nor cuts it."""
    from rich.text import Text

    console.print(Text(text, style=style), soft_wrap=True)


def lay_out(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    keys: Sequence[int] = (0,),
    lead: Sequence[int] = (),
    prose: Sequence[int] = (),
    right: bool = False,
    references: int = 0,
) -> list[Line]:
    """Lay a table out.

    Args:
        heads: Names of the columns.
        rows: Texts, as many as there are heads in each.
        width: Columns of the terminal.
        keys: Indices of the columns that name a row.
        lead: Indices of the columns that come first, and in one table, where the others have to go into further ones.
        prose: Indices of the columns that may be wrapped between words.
        right: Set the other columns flush right.
        references: A rule stands before so many last rows.
    """
    natural = [max(_size(line[i]) for line in (heads, *rows)) for i in range(len(heads))]
    least = [_least(i in prose, [line[i] for line in (heads, *rows)]) for i in range(len(heads))]
    if _total(least) <= width:
        groups, widths = [list(range(len(heads)))], _squeezed(natural, least, width)
    else:
        others = [
            i for i in (*lead, *range(len(heads))) if i not in keys and any(row[i] not in NOTHING for row in rows)
        ]
        others = list(dict.fromkeys(others))
        groups, widths = [] if prose else _groups(natural, keys, lead, others, width), natural
        # A few rows of many columns read better one after another than in as many tables.
        if not groups or len(groups) * (len(rows) + 3) > len(rows) * (len(others) + 2):
            return _blocks(heads, rows, width, keys, others, prose)
    mute = {n for n, row in enumerate(rows) if all(text in NOTHING for i, text in enumerate(row) if i not in keys)}
    lines: list[Line] = []
    for group in groups:
        # A row that says nothing here says it in another table; one that says nothing anywhere stands in the first.
        first = mute if group is groups[0] else set()
        told = [n for n, row in enumerate(rows) if any(row[i] not in NOTHING for i in group if i not in keys)]
        shown = [n for n in range(len(rows)) if n in told or n in first or len(groups) == 1]
        below = next((n for n in shown[1:] if n >= len(rows) - references > shown[0]), None)
        sizes = [widths[i] for i in group]
        flush = [right and i not in keys for i in group]
        rule = Line("─" * _total(sizes))
        lines += [Line("")] if lines else []
        lines += [*(Line(text) for text in _cells([heads[i] for i in group], sizes, flush)), rule]
        for n in shown:
            lines += [rule] if n == below else []
            lines += [Line(text, n) for text in _cells([rows[n][i] for i in group], sizes, flush)]
    return lines


def wrap(text: str, width: int) -> list[str]:
    """Break a text between words; a word that is longer than a line stays whole."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and _size(lines[-1]) + 1 + _size(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def _groups(
    widths: Sequence[int], keys: Sequence[int], lead: Sequence[int], others: Sequence[int], width: int
) -> list[list[int]]:
    """Spread the columns over tables that fit, the keys in each; empty where one does not fit beside the keys."""
    groups: list[list[int]] = []
    together = [i for i in lead if i in others]
    if _total([widths[j] for j in [*keys, *together]]) > width:  # what is read first is read on one line
        return []
    groups += [[*keys, *together]] if together else []
    for i in (i for i in others if i not in together):
        if groups and _total([widths[j] for j in [*groups[-1], i]]) <= width:
            groups[-1].append(i)
            continue
        groups.append([*keys, i])
        if _total([widths[j] for j in groups[-1]]) > width:
            return []
    return groups


def _squeezed(natural: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """Take what is too much from the widest column that can give, one by one."""
    widths = list(natural)
    for _ in range(max(0, _total(widths) - width)):
        giving = [i for i in range(len(widths)) if widths[i] > least[i]]
        widths[max(giving, key=lambda i: widths[i])] -= 1
    return widths


def _cells(texts: Sequence[str], widths: Sequence[int], flush_right: Sequence[bool]) -> list[str]:
    """The lines of one row."""
    folded = [[t] if _size(t) <= w else wrap(t, w) for t, w in zip(texts, widths, strict=True)]
    out = []
    for k in range(max(len(f) for f in folded)):
        parts = []
        for lines, size, flush in zip(folded, widths, flush_right, strict=True):
            text = lines[k] if k < len(lines) else ""
            space = " " * (size - _size(text))
            parts.append(space + text if flush else text + space)
        out.append((" " * GAP).join(parts).rstrip())
    return out


def _blocks(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    keys: Sequence[int],
    others: Sequence[int],
    prose: Sequence[int],
) -> list[Line]:
    """A row a block: its name, then a line for each of its other columns that says something."""
    margin = INDENT + max((_size(heads[i]) for i in others), default=0) + GAP
    beside = all(margin + _least(i in prose, [row[i]]) <= width for row in rows for i in others)
    lines: list[Line] = []
    for n, row in enumerate(rows):
        lines += [Line("")] if lines else []
        lines += [Line(text, n) for text in _name([row[i] for i in keys], width)]
        for i in (i for i in others if row[i] not in NOTHING):
            if beside:
                label = " " * INDENT + heads[i]
                first, *more = wrap(row[i], width - margin)
                lines.append(Line(label + " " * (margin - _size(label)) + first, n))
                lines += [Line(" " * margin + text, n) for text in more]
            else:
                lines += [Line(" " * INDENT + text, n) for text in wrap(heads[i], width - INDENT) if text]
                lines += [Line(" " * 2 * INDENT + text, n) for text in wrap(row[i], width - 2 * INDENT)]
    return lines


def _name(parts: Sequence[str], width: int) -> list[str]:
    """The parts of a row's name on as few lines as they fit on; a part that is longer is broken between words."""
    lines: list[str] = []
    for part in parts:
        if lines and _size(lines[-1]) + GAP + _size(part) <= width:
            lines[-1] += " " * GAP + part
        else:
            lines += wrap(part, width)
    return lines


def _least(prose: bool, texts: Sequence[str]) -> int:
    """Columns that texts take at least: all, or of prose the longest word or what can still be read."""
    natural = max(map(_size, texts))
    return max(min(natural, READABLE), *(_size(word) for t in texts for word in t.split(" "))) if prose else natural


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _size(text: str) -> int:
    """Columns that a text takes; a wide character takes two."""
    from rich.cells import cell_len

    return cell_len(text)
