"""Tables as Markdown; nothing in a name is acted on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.table import Table
from ddpmkit.report.show.tables import all_tables, remarks
from ddpmkit.text import inert


def to_markdown(summary: Summary, shown: Sequence[Table] | None = None) -> str:
    """The tables and notes as Markdown."""
    out = [f"**{escape(summary.caution)}**", ""] if summary.caution else []
    tables = all_tables(summary) if shown is None else shown
    for table in tables:
        out += [f"**{escape(table.title)}**", ""]
        out += ["| " + " | ".join(escape(c) for c in table.columns) + " |"]
        out += ["|" + "|".join(":--" if i == 0 else "--:" for i in range(len(table.columns))) + "|"]
        out += ["| " + " | ".join(escape(c) for c in row) + " |" for row in table.rows]
        out += [""]
    out += [f"- {escape(note)}" for note in remarks(summary, tables)]
    return "\n".join(out) + "\n"


def escape(text: str) -> str:
    """Escape what Markdown or HTML would act on."""
    text = inert(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|\[\]!#~])", r"\\\1", text)
