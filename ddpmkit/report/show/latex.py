"""Tables as LaTeX with booktabs, for any stock TeX: pdflatex needs that package and nothing else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.tables import Table, all_tables, remarks
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
GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψω", (
    "alpha", "beta", "gamma", "delta", "varepsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
    "xi", "pi", "rho", "sigma", "tau", "upsilon", "varphi", "chi", "psi", "omega",
), strict=True))  # fmt: skip


def to_latex(summary: Summary, shown: Sequence[Table] | None = None) -> str:
    """The tables as ``table`` environments, the notes below the last."""
    out = [r"% \usepackage{booktabs}"]
    for table in all_tables(summary) if shown is None else shown:
        out += [
            r"\begin{table}[htbp]",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escape(table.title)}}}",
        ]
        out += [rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", r"\toprule"]
        out += [_row(table.columns), r"\midrule"]
        split = len(table.rows) - table.references
        for index, row in enumerate(table.rows):
            if table.references and index == split:
                out.append(r"\midrule")
            out.append(_row(row))
        out += [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    if remarks(summary):
        out += [r"\begingroup\footnotesize\raggedright", r"\begin{itemize}"]
        out += [rf"\item {escape(note)}" for note in remarks(summary)]
        out += [r"\end{itemize}", r"\endgroup"]
    return "\n".join(out) + "\n"


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


def _row(cells: Sequence[str]) -> str:
    return " & ".join(escape(c) if i == 0 else _numbers(c) for i, c in enumerate(cells)) + r" \\"


def _numbers(text: str) -> str:
    """A cell that is not a label: signs become the mathematical ones, a lone dash a dash."""
    if text == "-":
        return "--"
    escaped = escape(text)
    return re.sub(r"(?:(?<=^)|(?<=[ \]])|(?<=\{\[\}))(?:\{-\}|\+)(?=\.?\d)", lambda m: f"${m[0].strip('{}')}$", escaped)
