"""How Sphinx makes the site: ``make docs``. What is made from the code is put into the pages as they are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import made

import ddpmkit

project = "ddpmkit"
author = "The ddpmkit developers"
release = version = ddpmkit.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_site"]
html_theme = "furo"
html_title = f"ddpmkit {version}"
myst_heading_anchors = 3
smartquotes = False  # --flag stays --flag
highlight_language = "none"  # indented blocks are what one types in a shell
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_use_rtype = False


def setup(app: Any) -> None:
    """Connect what fills the pages to Sphinx."""
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, made.page(name, source[0])))
    app.connect("autodoc-process-docstring", lambda app, what, name, obj, options, lines: made.docstring(lines))
