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
def print_rows(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    keys: Sequence[int] = (0,),
    prose: Sequence[int] = (),
    titled: bool = False,
) -> None:
    """Print a table of text on stdout.

    Args:
        title: What it is; in a terminal, and where ``titled``.
        heads: Names of the columns.
        rows: Texts, as many as there are heads in each.
        keys: Indices of the columns that name a row.
        prose: Indices of the columns that may be wrapped between words.
        titled: Whether in a pipe too the title stands above the rows, behind a ``#``: where several tables go out.
    """
    if not sys.stdout.isatty():
        if titled:
            print(f"# {inert(title)}")
        for row in (heads, *rows):
            print("\t".join(inert(c) for c in row))
        return
    from ddpmkit.text.layout import print_table, screen

    print_table(screen(), title, heads, rows, keys=keys, prose=prose)
