"""Tables as LaTeX with booktabs, for any stock TeX: pdflatex needs that package and nothing else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.table import Table
from ddpmkit.report.show.tables import all_tables, remarks
from ddpmkit.text import inert

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",  # by number: no package for quotes is needed, and babel's shorthands stay asleep
    "'": r"\char39{}",
    "`": r"\char96{}",
    "[": "{[}",  # after a row's end a bracket would be its optional argument
    "]": "{]}",
    "*": "{*}",
    "-": "{-}",  # no ligature: -- stays two hyphens
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "\u2013": "--",
    "\u2212": "$-$",
    "\u00d7": r"$\times$",
    "±": r"$\pm$",
}
# A cell that begins with a number: the number, what stands from its point on, and what follows, as an interval.
NUMBER = re.compile(r"(?P<number>[<]?[+-]?\d*(?P<after>\.\d+)?)(?<=\d)(?P<rest>(?:[ %].*)?)", re.DOTALL)
GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψω", (
    "alpha", "beta", "gamma", "delta", "varepsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
    "xi", "pi", "rho", "sigma", "tau", "upsilon", "varphi", "chi", "psi", "omega",
), strict=True))  # fmt: skip


def to_latex(summary: Summary, shown: Sequence[Table] | None = None, *, notes: bool = True) -> str:
    """The tables as ``table`` environments with a label each, numbers aligned at their points; then the notes.

    Args:
        summary: What the report says.
        shown: Other tables than the usual ones.
        notes: Whether the notes are set; else they are comments, for a table that goes into a text of one's own.
    """
    tables = all_tables(summary) if shown is None else shown
    out = [r"% \usepackage{booktabs}"]
    if summary.caution:
        out += [rf"\noindent\textbf{{{escape(summary.caution)}}}\par" if notes else f"% {inert(summary.caution)}"]
    for number, table in enumerate(tables):
        out += _table(table, f"tab:{_slug(summary.study)}-{table.name or number + 1}")
    said = remarks(summary, tables)
    if said and notes:
        out += [r"\begingroup\footnotesize\raggedright", r"\begin{itemize}"]
        out += [rf"\item {escape(note)}" for note in said]
        out += [r"\end{itemize}", r"\endgroup"]
    elif said:
        out += [f"% {inert(note)}" for note in said]
    return "\n".join(out) + "\n"


def _table(table: Table, label: str) -> list[str]:
    """One ``table`` environment."""
    columns = [
        _column(head, [row[i] for row in table.rows], label=i in table.keys) for i, head in enumerate(table.columns)
    ]
    rows = [" & ".join(cells) + r" \\" for cells in zip(*(c.cells for c in columns), strict=True)]
    split = len(rows) - table.references
    rule = [r"\midrule"] if table.references and split else []
    return [
        r"\begin{table}[htbp]",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(table.title)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{{''.join(c.kind for c in columns)}}}",
        r"\toprule",
        " & ".join(c.head for c in columns) + r" \\",
        r"\midrule",
        *rows[:split],
        *rule,
        *rows[split:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]


class _Column(NamedTuple):
    """What a column is declared as, its head, and its cells; a number and its interval are two of TeX's columns."""

    kind: str
    head: str
    cells: list[str]


def _column(head: str, texts: Sequence[str], *, label: bool) -> _Column:
    """Set a column: labels and words to the left, numbers with their points below one another."""
    numbers = [NUMBER.fullmatch(text) for text in texts]
    if label or not any(numbers):
        return _Column("l", escape(head), [escape(text) if label else _signs(text) for text in texts])
    most = max(len(n["after"] or "") for n in numbers if n)
    two = any(n and n["rest"] for n in numbers)
    cells = []
    for text, number in zip(texts, numbers, strict=True):
        if number is None:  # a dash, or words: right of nothing, and left of nothing
            cells.append(rf"\multicolumn{{2}}{{c}}{{{_signs(text)}}}" if two else _signs(text))
            continue
        # What a number has fewer behind its point is kept free: no package is needed.
        free = "" if most == len(number["after"] or "") else _phantom(number["after"] or "", most)
        first = _signs(number["number"]) + free
        cells.append(f"{first} & {_signs(number['rest'].strip())}" if two else first)
    return _Column(
        "r@{ }l" if two else "r", rf"\multicolumn{{2}}{{c}}{{{escape(head)}}}" if two else escape(head), cells
    )


def _phantom(after: str, most: int) -> str:
    return rf"\phantom{{{'.' if not after else ''}{'0' * (most - max(1, len(after)))}}}"


def escape(text: str) -> str:
    """Text as pdflatex prints it; a letter that a stock font lacks is named by its code point."""
    return "".join(_letter(c) for c in unicodedata.normalize("NFC", inert(text)))


def _letter(c: str) -> str:
    if c in SPECIAL:
        return SPECIAL[c]
    if c in GREEK:
        return rf"$\{GREEK[c]}$"
    if c.isascii():
        return c
    if unicodedata.category(c)[0] == "L" and ord(c) < 0x180 and unicodedata.decomposition(c):
        return c  # an accented Latin letter: inputenc's utf8 knows it
    return f"{{[}}U+{ord(c):04X}{{]}}"


def _signs(text: str) -> str:
    """Text in which signs are the mathematical ones, and a lone dash is a dash."""
    if text == "-":
        return "--"
    escaped = escape(text)
    return re.sub(r"(?:(?<=^)|(?<=[ \]])|(?<=\{\[\}))(?:\{-\}|\+)(?=\.?\d)", lambda m: f"${m[0].strip('{}')}$", escaped)


def _slug(name: str) -> str:
    """A name that TeX takes as a label's."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "study"
