"""``status``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ddpmkit.cli.options import Json, Out
from ddpmkit.cli.streams import data


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(status)


def status(
    context: typer.Context,
    study: Annotated[str | None, typer.Argument(help="Name or folder of a study; the newest by default")] = None,
    out: Out = Path("results"),
    json: Json = False,
) -> None:
    """How far a study is, who runs it, and what went wrong."""
    import json as json_module

    from ddpmkit.cli.console import print_rows
    from ddpmkit.study.status import read_status
    from ddpmkit.study.store import find_study

    found = read_status(find_study(study, out))
    if json:
        print(json_module.dumps(found, indent=1), file=data())
        return
    states = sorted({s for counts in found["kinds"].values() for s in counts})
    rows = [(kind, *(str(counts.get(s, 0)) for s in states)) for kind, counts in found["kinds"].items()]
    print_rows(f"study {found['study']}", ("stage", *states), rows)
    for running in found["running"]:
        print(f"{running['label']}: {running['where']}", file=sys.stderr)
    for problem in found["problems"]:
        print(f"{problem['label']}: {problem['state']}: {problem['error']}", file=sys.stderr)
