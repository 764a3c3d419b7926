"""What a study is asked for by: options alone, beside a study that is there or a file, or beside a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import spec
from ddpmkit.study.config import axis_fields
from ddpmkit.study.design import zipped
from ddpmkit.study.grids import There, flat, texts
from ddpmkit.study.recipe import recipe_options
from ddpmkit.study.settings import FIELDS, PLURALS
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
    if isinstance(orderings := kept.get("ordering"), list):
        kept["ordering"] = list(_in_more_axes(orderings, stored, given, there))
    return {**kept, **given}


def _in_more_axes(
    orderings: list[Any], stored: dict[str, Any], given: dict[str, Any], there: There | None
) -> Iterator[Any]:
    """The stored orderings in what is asked for: of an axis that is new, their cells have the one value of before.

    Where that is none of the values that are asked for, an ordering of a study that is there is left to its plan: the
    study is then refused in words about its grid, not about the ordering.
    """
    new: dict[str, list[str]] = {}
    for key, value in (*given.items(), *(text.partition("=")[::2] for text in _listed(given.get("axis"), split=False))):
        if (field := PLURALS.get(key, key).replace("-", "_")) in FIELDS and value != "":
            new[field] = _listed(value)
    before = {field: single for field in new if (single := _single(field, stored, given, there)) is not None}
    known = {o.claim for o in there.orderings} if there and "name" not in given else set()
    for one in orderings:
        stated = [one.get("where", {}), one.get("cell"), one.get("baseline")] if isinstance(one, Mapping) else [None]
        parts = [part for part in stated if isinstance(part, Mapping)]
        if len(parts) < len(stated):  # whoever reads it says what is wrong
            yield one
            continue
        where, (said, *both) = parts[0], [{PLURALS.get(k, k) for k in part} for part in parts]
        fixed = {f: v for f, v in before.items() if f not in said | (both[0] & both[1])}
        if one.get("claim") in known and any(v not in new[f] for f, v in fixed.items()):
            continue
        yield {**one, "where": {**{f: v for f, v in fixed.items() if len(new[f]) > 1}, **where}}


def _single(field: str, stored: dict[str, Any], given: dict[str, Any], there: There | None) -> str | None:
    """The one value of a setting before, as one types it; None where it had several, or a preset may have set it."""
    named = [value for key, value in stored.items() if PLURALS.get(key, key) == field]
    if not named and there is not None:
        named = [flat(there.grid).get(field)]
    elif not named and "preset" not in {*stored, *given}:
        named = [FIELDS[field].default]
    found = _listed(named[0]) if named else []
    return found[0] if len(found) == 1 else None


def _listed(value: Any, *, split: bool = True) -> list[str]:
    """Values as one types them, from a list of them, one, or a text of several."""
    if isinstance(value, str):
        return spec.split(value) if split else [value]
    return [] if value is None else texts(list(value) if isinstance(value, (list, tuple)) else value)
