"""The shipped recipes, as ``ls`` and ``show`` print them."""

from __future__ import annotations

import json as json_module

from ddpmkit.cli.console import print_rows
from ddpmkit.cli.streams import data, on_stdout
from ddpmkit.study.recipe import of_bench, recipe_file, recipes, scales

KIND = "recipe"


def list_recipes(*, json: bool) -> None:
    """Print each recipe with its scales and what it asks."""
    if json:
        told = [{"kind": KIND, "name": n, "scales": list(scales(n)), "summary": s} for n, s in recipes().items()]
        print(json_module.dumps(told, indent=1), file=data())
        return
    rows = [
        (n, "of ddpmkit bench" if of_bench(n) else ", ".join(scales(n)) or "one", summary)
        for n, summary in recipes().items()
    ]
    print_rows("recipes", ("recipe", "scales", "asks"), rows, prose=(2,))


def recipe_record(name: str) -> dict[str, object]:
    """What a recipe is, as JSON values."""
    text = recipe_file(name).read_text(encoding="utf-8")
    return {"kind": KIND, "name": name, "scales": list(scales(name)), "summary": recipes()[name], "text": text}


@on_stdout()
def print_recipe(name: str) -> None:
    """Print the file of a recipe, with the paper's table in it, and how to run it."""
    found = scales(name)
    command = f"bench {name}" if of_bench(name) else f"ablate --recipe {name}"
    command += f" --scale {'|'.join(found)}" if found else ""
    print(f"recipe {name}   type: ddpmkit {command}\n")
    print(recipe_file(name).read_text(encoding="utf-8"), end="")
