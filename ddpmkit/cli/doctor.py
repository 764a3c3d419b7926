"""``doctor``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ddpmkit.cli.options import Json, Out
from ddpmkit.cli.streams import data
from ddpmkit.errors import Exit


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(doctor)


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at the sizes of large files, and not at their content")
    ] = False,
    out: Out = Path("results"),
    json: Json = False,
) -> None:
    """Name damaged files, and what the next run does.

    Of a results folder, store and studies; nothing is changed.

    Exit code 1 where something is damaged.
    """
    import json as json_module
    from dataclasses import asdict

    from ddpmkit.cli.console import print_rows
    from ddpmkit.study.doctor import check_up
    from ddpmkit.study.store import Store
    from ddpmkit.text import size

    found = check_up(Store(out), quick=quick)
    if json:
        damaged = [{**asdict(d), "path": str(d.path)} for d in found.damaged]
        record = {"whole": not damaged, "damaged": damaged, "files": found.files, "bytes": found.size}
        print(json_module.dumps({**record, "busy": found.busy, "quick": quick}, indent=1), file=data())
    elif found.damaged:
        rows = [
            (str(d.path.relative_to(out) if d.path.is_relative_to(out) else d.path), d.why, d.then, d.label)
            for d in found.damaged
        ]
        print_rows(f"damaged in {out}", ("file", "what", "the next run", "stage"), rows, prose=(1, 2))
    for damage in () if json else found.damaged:
        if damage.read_by:
            print(f"note: {', '.join(damage.read_by)} read {damage.label}, and stay as they are", file=sys.stderr)
    if found.busy:
        print(f"note: {found.busy} stages were not looked at, somebody is at work on them", file=sys.stderr)
    looked = f"{found.files} files, {size(found.size)}" + (", by their sizes" if quick else "")
    print(f"looked at {looked}: {f'{len(found.damaged)} damaged' if found.damaged else 'whole'}", file=sys.stderr)
    if found.damaged:
        raise typer.Exit(int(Exit.FAILED))
