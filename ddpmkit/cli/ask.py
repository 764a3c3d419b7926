"""``why`` and ``diff``: what a stage is for, and what made two of them different."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ddpmkit.cli.options import Json, Out
from ddpmkit.cli.streams import data

Id = Annotated[str, typer.Argument(metavar="ID", help="A stage: the first digits of its id")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(why)
    app.command()(diff)


def why(stage: Id, out: Out = Path("results"), json: Json = False) -> None:
    """What a stage is, who needs it, what its id is made of.

    Also how it stands, and what it reads; who needs it are studies and cells.
    """
    import json as json_module

    from ddpmkit.cli.console import print_rows
    from ddpmkit.files import home
    from ddpmkit.study.lookup import SHOWN, flat
    from ddpmkit.study.lookup import why as ask
    from ddpmkit.study.store import Store

    found = ask(Store(home(out)), stage)
    if json:
        print(json_module.dumps(found, indent=1), file=data())
        return
    seconds = "" if found["seconds"] is None else f", {found['seconds']:.1f} s, attempt {found['attempts']}"
    brief = _brief()
    rows = [("id", brief(found["id"])), ("label", found["label"]), ("state", f"{found['state']}{seconds}")]
    rows += [("at work", found["at_work"])] if found["at_work"] else []
    rows += [("error", found["error"])] if found["error"] else []
    rows += [("needed by", f"{n['study']}: {', '.join(n['cells'])}") for n in found["needed_by"]]
    if found["unreadable"]:
        said = f"not known of {', '.join(found['unreadable'])}: the plan is damaged"
        rows += [("needed by", said if found["needed_by"] else f"no readable study; {said}")]
    elif not found["needed_by"]:
        rows += [("needed by", "no study; ddpmkit gc moves it to the trash")]
    rows += [("reads", f"{u['kind']} {u['id'][:SHOWN]} ({u['state']}): {u['label']}") for u in found["upstream"]]
    rows += [("version", str(found["version"]))] if found["version"] is not None else []
    rows += [(name, brief(text)) for name, text in flat(found["spec"])]
    print_rows(f"{found['kind']} {found['id'][:SHOWN]}", ("what", "value"), rows, prose=(1,))


def diff(a: Id, b: Id, out: Out = Path("results"), json: Json = False) -> None:
    """What made the ids of two stages differ.

    Every field with both values; where they read different stages, what made those differ too.
    """
    import json as json_module

    from ddpmkit.cli.console import print_rows
    from ddpmkit.files import home
    from ddpmkit.study.lookup import differences
    from ddpmkit.study.store import Store

    found = differences(Store(home(out)), a, b)
    if json:
        rows = [{"field": field, "a": x, "b": y} for field, x, y in found]
        print(json_module.dumps({"a": a, "b": b, "differences": rows}, indent=1), file=data())
        return
    brief = _brief()
    print_rows(f"{a} and {b}", ("field", brief(a), brief(b)), [(field, brief(x), brief(y)) for field, x, y in found])
    if not found:
        print("they are the same stage", file=sys.stderr)


def _brief() -> Callable[[str], str]:
    """What shortens values in a terminal; in a pipe they are whole."""
    from ddpmkit.study.lookup import short

    return short if data().isatty() else str
