"""Recipes: study files that are shipped inside the package, each at several scales.

A recipe is a study file with a table of settings for each scale, ``[scale.digits]``, which stand beside its own and go
before them. Its orderings take their seeds and their number of samples from the scale where they say none. A recipe
without scales is one study; that of a bench, settings of one training, says how often it is looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.study.settings import NLL
from ddpmkit.study.values import read_toml

RECIPES = Path(__file__).parent / "recipes"
LOOK = "look_every"  # of a bench
USUAL = "digits"
DATA = {"mnist": "--dataset idx:path=FOLDER", "emoji": "--dataset npz:path=FILE"}  # what nobody else may ship


def recipes() -> dict[str, str]:
    """Return the name of each recipe -> what it asks, its file's first line."""
    found = sorted(RECIPES.glob("*.toml"))
    return {p.stem: p.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for p in found}


def recipe_file(name: str) -> Path:
    """Return the file of a recipe.

    Raises:
        DdpmkitError: when there is none of that name.
    """
    path = RECIPES / f"{name}.toml"
    if name not in recipes():
        raise DdpmkitError(f"there is no recipe '{name}'{did_you_mean(name, recipes())}", "ddpmkit ls recipe")
    return path


def scales(name: str) -> tuple[str, ...]:
    """Return the scales of a recipe."""
    return tuple(read_toml(recipe_file(name)).get("scale", {}))


def of_bench(name: str) -> bool:
    """Return whether a recipe is the training of a bench."""
    return LOOK in read_toml(recipe_file(name))


def recipe_options(name: str, scale: str | None = None, dataset: str | None = None) -> dict[str, Any]:
    """Return the options of a study that a recipe states, named after recipe and scale.

    Args:
        name: The recipe.
        scale: One of its scales; digits by default.
        dataset: The images, where the user says where they are.

    Raises:
        DdpmkitError: when there is no such recipe or scale, or the scale's images have to be given and are not.
    """
    stated = read_toml(recipe_file(name))
    known = stated.pop("scale", {})
    if stated.pop(LOOK, None) is not None or not known:
        if scale is not None:
            raise DdpmkitError(f"recipe '{name}' is of one scale", f"ddpmkit ablate --recipe {name}")
        return {**stated, "name": name}
    scale = USUAL if scale is None else scale
    if scale not in known:
        raise DdpmkitError(
            f"recipe '{name}' has no scale '{scale}'{did_you_mean(scale, known)}", f"scales: {', '.join(known)}"
        )
    options = {**stated, **known[scale], "name": f"{name}-{scale}"}
    if "dataset" not in options and dataset is None:
        raise DdpmkitError(f"the images of scale '{scale}' are not shipped", DATA.get(scale, "--dataset SPEC"))
    options["ordering"] = [_filled(one, options) for one in options.get("ordering", ())]
    return options


def _filled(ordering: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """An ordering with the seeds and the samples of the study."""
    n = {} if ordering.get("metric") == NLL else {"n": options.get("samples")}
    return {"seeds": options.get("train_seeds"), **n, **ordering}
