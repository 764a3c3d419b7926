"""The cells of a grid as it is stored: two grids are held against each other by these, whatever their shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.study.design import FULL, SHAPE, among, conditions, label_of, points, read_zip
from ddpmkit.study.settings import FIELDS


def cells_of(grid: Mapping[str, Any]) -> set[str]:
    """Return the cells of a grid, those that ``only`` leaves out too, each as the canonical JSON of its settings.

    Of a grid that can't be read there is one that no other grid has.
    """
    return {*_cells(grid)}


def gives_back(there: Any, now: Mapping[str, Any]) -> bool:
    """Whether a grid has a cell of another one's levels that the other leaves out."""
    if not isinstance(there, Mapping) or not any(there.get(key) for key in SHAPE):
        return False
    # Of one axis at a time the levels are few and their product is not: it is never made.
    before = {p.name: p.before for p in FIELDS.values() if p.before is not dataclasses.MISSING}
    single = {name: [value] for name, value in {**before, **there.get("settings", {})}.items()}
    levels = {name: {*map(files.canonical, values)} for name, values in {**single, **there.get("axes", {})}.items()}
    kept = cells_of(there)
    return any(
        cell.keys() == levels.keys() and all(files.canonical(v) in levels[name] for name, v in cell.items())
        for text, cell in _cells(now).items()
        if text not in kept
    )


def _cells(grid: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The cells of a grid by their canonical JSON."""
    before = {p.name: p.before for p in FIELDS.values() if p.before is not dataclasses.MISSING}
    settings, axes, out = {**before, **grid.get("settings", {})}, grid.get("axes", {}), dict[str, dict[str, Any]]()
    try:
        zips = [read_zip(text) for text in grid.get("zip", ())]
        left_out = conditions(grid.get("exclude", ()))
        for point in points(axes, zips, grid.get("design", FULL)):
            cell = {**settings, **point}
            if not among(label_of(point), cell, grid.get("exclude", ()), left_out):
                out[files.canonical(cell)] = cell
    except (DdpmkitError, KeyError, TypeError, ValueError) as err:
        return {f"not read: {err}": {}}
    return out
