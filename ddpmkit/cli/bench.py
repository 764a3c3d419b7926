"""``bench``: the time to a fixed NLL and a fixed FD, by a recipe that anybody may edit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmkit.cli.options import PATH, Global, Json, Plugins
from ddpmkit.cli.streams import data, on_stdout
from ddpmkit.errors import DdpmkitError, Exit, did_you_mean

if TYPE_CHECKING:
    from ddpmkit.study.target import Look


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(bench)


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="digits or mnist")],
    recipe: Annotated[
        Path | None, typer.Option(help="A .toml file of settings; default: the one of --print-recipe", **PATH)
    ] = None,
    print_recipe: Annotated[bool, typer.Option("--print-recipe", help="Print the recipe, to edit and to beat")] = False,
    dataset: Annotated[str | None, typer.Option(help="Where MNIST is: idx:path=FOLDER or npz:path=FILE")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The train seed")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Time a training to a fixed NLL and a fixed FD.

    Its CPU and wall seconds, on one thread; looking at it is not counted. What never gets there is exit 1.
    """
    import json as json_module

    from ddpmkit.cli.console import print_rows
    from ddpmkit.study.recipe import recipe_file
    from ddpmkit.study.target import TARGETS, race, read_recipe

    if name not in TARGETS:
        raise DdpmkitError(f"there is no bench '{name}'{did_you_mean(name, TARGETS)}", f"one of {', '.join(TARGETS)}")
    target = TARGETS[name]
    if print_recipe:
        with on_stdout():
            print(recipe_file(name).read_text(encoding="utf-8"), end="")
        return
    given: Global = context.obj
    stated = read_recipe(target, recipe)

    def tell(look: Look) -> None:
        print(
            f"step {look.step}: {look.cpu_seconds:.1f} s of CPU, NLL {look.nll:.3f}, FD {look.fd:.2f}", file=sys.stderr
        )

    record = race(
        target, stated, dataset=dataset, seed=seed, device=device, registry=given.registry(plugin), on_look=tell
    )
    if json:
        print(json_module.dumps(record, indent=1), file=data())
    else:
        rows, last = [], record["looks"][-1]
        for key, label, unit in (("nll", "NLL", "bits/dim"), ("fd", f"FD-{target.features}, debiased", "")):
            wanted = f"{record['target'][key]:g} {unit}".strip()
            look = record["reached"].get(key)
            if look is None:
                best = min(look[key] for look in record["looks"])
                rows.append((label, wanted, "not reached", "", str(last["step"]), f"best {best:.3f}"))
            else:
                clocks = (f"{look['cpu_seconds']:.1f}", f"{look['wall_seconds']:.1f}")
                rows.append(
                    (label, wanted, *clocks, str(look["step"]), f"{look[key]:.3f} +- {look[f'{key}_se'] or 0:.3f}")
                )
        print_rows(f"bench {name}", ("target", "at most", "CPU s", "wall s", "step", "found"), rows)
    if len(record["reached"]) < 2:
        raise typer.Exit(int(Exit.FAILED))
