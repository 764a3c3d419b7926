"""``verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ddpmkit.cli.options import Global, Json, Out, Plugins
from ddpmkit.cli.streams import data
from ddpmkit.errors import Exit


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: ddpmkit verify mine --stages 5")(verify)


def verify(
    context: typer.Context,
    study: Annotated[str | None, typer.Argument(help="A study by name or folder; default: the newest")] = None,
    stages: Annotated[int, typer.Option("--stages", help="How many, drawn at random", min=1)] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw; another one draws other stages")] = 0,
    out: Out = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Compute stages drawn at random again, and compare.

    On the same hardware and libraries every byte must be the same. Elsewhere metrics and bounds are computed again from
    the stored samples and draws (to 1e-4 of the number, of its standard error or of 0.001, whichever is largest), and
    of a training the first losses (to 1e-3 of each). Nothing stored is changed.

    Exit code 1 where something differs.
    """
    import json as json_module
    from dataclasses import asdict

    from rich.progress import Progress

    from ddpmkit import device as devices
    from ddpmkit.cli.console import print_rows, stderr_console
    from ddpmkit.study.ending import stop_flag
    from ddpmkit.study.settings import StageOptions
    from ddpmkit.study.store import Store
    from ddpmkit.study.verify import choose
    from ddpmkit.study.verify import verify as again

    given: Global = context.obj
    store, registry = Store(out), given.registry(plugin)
    with devices.one_thread():
        here = devices.fingerprint(devices.resolve(device))
    choice = choose(study, store, stages, seed=seed, fingerprint=here)
    console, found = stderr_console(), []
    with stop_flag() as stop, Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("verify", total=len(choice.stages))
        for stage, same_machine in choice.stages:
            bar.update(task, description=stage.label)
            options = StageOptions(device=device)
            one = again(stage, store, registry, options, here=same_machine, should_stop=stop.is_set)
            if stop.is_set() and not one.same:  # it was cut short, which says nothing about it
                break
            found.append(one)
            bar.advance(task)
            if stop.is_set():
                break
    if json:
        record: dict[str, Any] = {"same": all(v.same for v in found), "seed": seed, "candidates": choice.candidates}
        record |= {"elsewhere": choice.elsewhere, "unfinished": choice.unfinished, "stages": [asdict(v) for v in found]}
        print(json_module.dumps(record, indent=1), file=data())
    else:
        rows = [(v.label, v.id[:12], v.how, _outcome(v.same, v.difference), v.where) for v in found]
        print_rows("computed again", ("stage", "id", "compared", "outcome", "largest difference"), rows, prose=(4,))
    for count, why in (
        (choice.elsewhere, "ran on other hardware or libraries, and only those can give their bits back"),
        (choice.unfinished, "are not done or damaged, or read one which is (ddpmkit doctor)"),
    ):
        if count:
            print(f"note: {count} stages were left out: they {why}", file=sys.stderr)
    if stop.is_set():
        print("note: it was stopped, and the stages behind these were not computed again", file=sys.stderr)
    differ = sum(not v.same for v in found)
    drawn = f"{len(found)} of {choice.candidates} stages, drawn with seed {seed}"
    print(f"{drawn}: {f'{differ} differ' if differ else 'all as stored'}", file=sys.stderr)
    if stop.signal is not None:
        raise typer.Exit(128 + stop.signal)
    if differ:
        raise typer.Exit(int(Exit.FAILED))


def _outcome(same: bool, difference: float) -> str:
    if not same:
        return "differs"
    return "identical" if difference == 0 else f"within {difference:.0e}"
