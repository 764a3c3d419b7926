"""How a table looks, one file a form: terminal, pipe, Markdown, LaTeX, CSV, JSON. The digits are the same in all."""

from ddpmkit.report.render.csv import to_tidy, to_wide
from ddpmkit.report.render.json import to_json
from ddpmkit.report.render.latex import to_latex
from ddpmkit.report.render.markdown import to_markdown
from ddpmkit.report.render.terminal import to_terminal, to_tsv
from ddpmkit.report.views import tables

__all__ = ["tables", "to_json", "to_latex", "to_markdown", "to_terminal", "to_tidy", "to_tsv", "to_wide"]
