"""``check``: what a component of any kind must satisfy, asked by name."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpmkit.cli.options import Global, Json, Plugins
from ddpmkit.cli.streams import data, on_stdout
from ddpmkit.errors import DdpmkitError, Exit, did_you_mean

if TYPE_CHECKING:
    from ddpmkit.plugin.registry import Registry


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(check)


def check(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(help="A spec, as cosine:s=0.01 or KIND/NAME; or a plugin, as ls prints it under from")
    ],
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Check components against what their kind must satisfy.

    A check that fails is told with what was seen and what to do, and makes it exit 1.
    """
    from ddpmkit.testing import run_checks, summary

    given: Global = context.obj
    found = [outcome for component in _components(what, given.registry(plugin)) for outcome in run_checks(component)]
    failed = [outcome for outcome in found if outcome.state == "failed"]
    if json:
        counts = {state: sum(o.state == state for o in found) for state in ("passed", "failed", "skipped")}
        record = {"checks": len(found), **counts, "outcomes": [asdict(outcome) for outcome in found]}
        print(json_module.dumps(record, indent=1), file=data())
    else:
        with on_stdout():
            for outcome in failed:
                print(f"failed {outcome.kind} {outcome.component} {outcome.check}: {outcome.seen}")
                print(f"  hint: {outcome.hint}")
            print(summary(found))
    if failed:
        raise typer.Exit(int(Exit.FAILED))


def _components(what: str, registry: Registry) -> list[Any]:
    """The components that a spec names, whatever their kind, or all that a plugin brings."""
    from ddpmkit.plugin import spec
    from ddpmkit.plugin.interfaces import KINDS

    name, raw = spec.parse(what)
    kind, slash, rest = what.partition("/")
    if slash and kind in KINDS:
        return [registry.build(kind, rest)]
    if entries := registry.named(name):
        return [registry.build(entry.kind, ":".join([entry.qualified, *what.split(":")[1:]])) for entry in entries]
    if not raw:
        loaded = registry.plugins()
        plugin = [p for p in loaded if name in (p.name, p.origin)]
        if plugin:
            return [registry.build(e.kind, e.qualified) for p in plugin for e in p.entries]
    known = [*(e.name for e in registry.entries()), *(p.name for p in registry.plugins())]
    raise DdpmkitError(f"there is no component or plugin '{name}'{did_you_mean(name, known)}", "ddpmkit ls")
