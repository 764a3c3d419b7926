"""The forms in which a report is printed."""

from __future__ import annotations

FORMATS = ("terminal", "md", "latex", "html", "csv", "wide", "json")
ALIASES = {"table": "terminal", "markdown": "md", "tex": "latex", "tidy": "csv"}
SUFFIXES = {".md": ("md",), ".tex": ("latex",), ".html": ("html",), ".csv": ("csv", "wide"), ".json": ("json",)}
