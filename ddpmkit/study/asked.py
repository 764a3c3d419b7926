"""What a study is asked for by: options alone, beside a study that is there or a file, or beside a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.study.config import axis_fields
from ddpmkit.study.design import zipped
from ddpmkit.study.grids import There
from ddpmkit.study.recipe import recipe_options
from ddpmkit.study.settings import PLURALS
from ddpmkit.study.store import Store
from ddpmkit.study.study_file import study_file
from ddpmkit.study.values import read_toml


def asked_for(options: Mapping[str, Any], store: Store) -> tuple[dict[str, Any], There | None, str | None]:
    """Return all options, what is there under the name that they were read under, and that name.

    Raises:
        DdpmkitError: when there is no such study, file, recipe or scale, or there are two of them.
    """
    given = {k: v for k, v in options.items() if v is not None}
    asked, recipe, scale = (given.pop(key, None) for key in ("study", "recipe", "scale"))
    if recipe is None and scale is not None:
        raise DdpmkitError("--scale is of a recipe", "ddpmkit ablate --recipe NAME --scale digits")
    if recipe is not None and asked is not None:
        raise DdpmkitError(f"'{asked}' and recipe '{recipe}' are two studies", "ask for one of them")
    if recipe is not None:
        return _beside(recipe_options(str(recipe), scale, given.get("dataset")), given, None), None, None
    if asked is None:
        return given, None, None
    file, name = study_file(asked, store)
    place = name or file.parent.name
    there = There.read(store, place)  # before the file, which whoever grows the study writes first
    stored = read_toml(file) | ({} if name is None else {"name": name})
    return _beside(stored, given, there), there, place


def _beside(stored: dict[str, Any], given: dict[str, Any], there: There | None) -> dict[str, Any]:
    """What is given beside what is stored, which it overrides."""
    overridden = axis_fields(given.get("axis", ())) | {PLURALS.get(k, k) for k in given} | zipped(given)
    # Other seeds are those of every cell; and what a study that grows has of cells that stopped, its plan knows,
    # while in its file they go by the names that they had before it grew.
    if "train_seeds" in given or (there and {*given} - {"name"}):
        overridden.add("stopped")
    kept = {k: v for k, v in stored.items() if k == "name" or PLURALS.get(k, k) not in overridden}
    return {**kept, **given}
