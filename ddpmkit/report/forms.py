"""The forms in which a report is printed, and the tables that it has, by the names that they are asked for."""

from __future__ import annotations

FORMATS = ("terminal", "md", "latex", "html", "csv", "wide", "json")
ALIASES = {"table": "terminal", "markdown": "md", "tex": "latex", "tidy": "csv"}
MAIN = "main"  # the cells against the metrics
TABLES = (MAIN, "orderings", "differences", "split", "effects", "interactions", "classes", "tests", "scatter")
SUFFIXES = {".md": ("md",), ".tex": ("latex",), ".html": ("html",), ".csv": ("csv", "wide"), ".json": ("json",)}
