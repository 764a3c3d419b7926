"""The orderings of a study file: read, refused where they are wrong, and written back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.study.orderings import KEYS, Ordering, Point, as_text, places
from ddpmkit.study.settings import FIELDS, NLL, PLURALS
from ddpmkit.study.values import as_toml, read_seeds

EXPECTED = ("lower", "higher", "equal")
OPTIONAL = ("where", "n", "paper")
HINT = "docs/statistics.md, 'Orderings', says what an [[ordering]] holds"
ReadValue = Callable[[str, Any], tuple[Any, ...]]


def read_orderings(
    given: Any, cells: Sequence[Mapping[str, Any]], value: ReadValue, beyond: Sequence[Mapping[str, Any]] = ()
) -> tuple[Ordering, ...]:
    """Read the orderings of a study file.

    Args:
        given: What stands in the file under ``ordering``.
        cells: The settings of each cell of the grid.
        value: Reads the values of a setting, each in its one form.
        beyond: The settings of each cell that conditions leave out; an ordering may be about these and stays open.

    Raises:
        DdpmkitError: for what is missing or unknown, for sides that are not one cell each, for a claim made twice.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(o, Mapping) for o in given):
        raise DdpmkitError("'ordering' must be a list of tables", "write each as [[ordering]]")
    out: dict[str, Ordering] = {}
    for index, one in enumerate(given):
        found = _read(one, f"ordering {index + 1}", value)
        if found.claim in out:
            raise DdpmkitError(f"two orderings claim '{found.claim}'", "a claim is an ordering's name; change one")
        at = [_place(side, cells, beyond, f"ordering '{found.claim}': its {which}") for which, side in _named(found)]
        if at[0] == at[1]:
            raise DdpmkitError(f"ordering '{found.claim}': cell and baseline are the same cell", HINT)
        out[found.claim] = found
    return tuple(out.values())


def ordering_toml(o: Ordering) -> str:
    """Write an ordering as a study file has it."""
    lines = ["[[ordering]]"]
    for key in KEYS:
        value = getattr(o, key)
        if value is None or value == {}:
            continue
        if isinstance(value, dict):
            inside = ", ".join(f"{k} = {as_toml(v)}" for k, v in value.items())
            lines.append(f"{key} = {{ {inside} }}")
        else:
            lines.append(f"{key} = {as_toml(list(value) if isinstance(value, tuple) else value)}")
    return "\n".join(lines) + "\n"


def _read(one: Mapping[str, Any], at: str, value: ReadValue) -> Ordering:
    for key in one:
        if key not in KEYS:
            raise DdpmkitError(f"{at}: unknown key '{key}'{did_you_mean(str(key), KEYS)}", f"keys: {', '.join(KEYS)}")
    for key in KEYS:
        if key not in one and key not in OPTIONAL:
            raise DdpmkitError(f"{at} has no '{key}'", HINT)
    for key in ("claim", "metric", "expected", "source"):
        if not isinstance(one[key], str) or not one[key].strip():
            raise DdpmkitError(f"{at}: '{key}' must be text, got {one[key]!r}", HINT)
    at = f"ordering '{one['claim']}'"
    if one["expected"] not in EXPECTED:
        raise DdpmkitError(f"{at}: nothing is expected to be '{one['expected']}'", f"one of {', '.join(EXPECTED)}")
    if not _number(one["margin"]) or one["margin"] <= 0:
        raise DdpmkitError(f"{at}: margin {one['margin']!r} is no positive gap", "as in margin = 0.05")
    n, paper = one.get("n"), one.get("paper")
    if n is None and one["metric"].lower() != NLL:
        raise DdpmkitError(f"{at} has no 'n', the images that its {one['metric']} rests on", "as in n = 1000")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
        raise DdpmkitError(f"{at}: n = {n!r} is no number of images", "as in n = 1000")
    if paper is not None and not (isinstance(paper, (list, tuple)) and len(paper) == 2 and all(map(_number, paper))):
        raise DdpmkitError(f"{at}: paper = {paper!r} is not two numbers", "those of cell and baseline, in this order")
    try:
        seeds = read_seeds("seeds", one["seeds"])
    except DdpmkitError:
        raise DdpmkitError(f"{at}: seeds = {one['seeds']!r} are no train seeds", "as in seeds = [0, 1, 2]") from None
    cell, baseline, where = (_point(one.get(k, {}), f"{at}: {k}", value) for k in ("cell", "baseline", "where"))
    return Ordering(
        claim=one["claim"],
        cell=cell,
        baseline=baseline,
        where=where,
        metric=one["metric"],
        expected=one["expected"],
        margin=float(one["margin"]),
        seeds=seeds,
        n=n,
        source=one["source"],
        paper=None if paper is None else (float(paper[0]), float(paper[1])),
    )


def _point(given: Any, at: str, value: ReadValue) -> Point:
    """Read axis values: a setting a key, each with one value."""
    if not isinstance(given, Mapping):
        raise DdpmkitError(f"{at} must be axis values, got {given!r}", 'as in cell = { sigma = "beta" }')
    out: Point = {}
    for key, text in given.items():
        field = PLURALS.get(str(key), str(key))
        if field not in FIELDS:
            raise DdpmkitError(
                f"{at}: unknown setting '{key}'{did_you_mean(str(key), FIELDS)}", "ddpmkit ablate --help"
            )
        values = value(field, text)
        if len(values) != 1:
            raise DdpmkitError(f"{at}: {field} has {len(values)} values", "an ordering is of one cell a side")
        out[field] = values[0]
    return out


def _named(o: Ordering) -> tuple[tuple[str, Point], tuple[str, Point]]:
    return ("cell", o.sides[0]), ("baseline", o.sides[1])


def _place(
    side: Point, cells: Sequence[Mapping[str, Any]], beyond: Sequence[Mapping[str, Any]], at: str
) -> tuple[bool, int]:
    """Return whether a side is a cell of the grid, not one that is left out, and which of them.

    Raises:
        DdpmkitError: when it is none, or several.
    """
    inside = bool(found := places(side, cells))
    cells = cells if inside else beyond
    if not (found := found or places(side, beyond)):
        raise DdpmkitError(
            f"{at} is no cell of the grid: {as_text(side)}", "its axes have other values; ddpmkit ablate -n"
        )
    if len(found) > 1:
        open_axes = [k for k in cells[0] if len({as_text(cells[i][k]) for i in found}) > 1]
        raise DdpmkitError(f"{at} is {len(found)} cells: {as_text(side)}", f"say its {', '.join(open_axes)} in where")
    return inside, found[0]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
