"""``python -m ddpmkit``."""

from ddpmkit.cli import entry

entry()
