"""The two consoles: data on stdout, everything else on stderr; tab-separated rows where stdout is no terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddpmkit.cli.streams import on_stdout
from ddpmkit.text import inert

if TYPE_CHECKING:
    from rich.console import Console


def stderr_console() -> Console:
    """A console on stderr that animates only in a real terminal."""
    from rich.console import Console

    interactive = sys.stderr.isatty() and not os.environ.get("CI")
    return Console(stderr=True, force_interactive=interactive)


@on_stdout()
def print_rows(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of text on stdout."""
    if not sys.stdout.isatty():
        for row in (heads, *rows):
            print("\t".join(inert(c) for c in row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(inert(title)), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    for index, head in enumerate(heads):
        table.add_column(Text(head), overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(inert(c)) for c in row))
    Console().print(table)
