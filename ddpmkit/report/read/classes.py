"""Samples by class and strength of guidance: what the picture with a row a class is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.read.axes import setting_text, varying_axes
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.samples import CellSamples, samples_of

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Levels

ACROSS = 5  # pictures of one class and strength


@dataclass(frozen=True)
class ClassGrid:
    """Samples of cells that differ in their guidance alone.

    Attributes:
        said: what else the cells are, for a title; empty where nothing else varies.
        guidances: strengths w, from the weakest.
        classes: the labels, rising.
        pictures: for each class and strength, the first samples of that class, (at most ACROSS, C, H, W); perhaps none.
        levels: K, the number of grey levels.
    """

    said: str
    guidances: tuple[float, ...]
    classes: tuple[int, ...]
    pictures: tuple[tuple[Levels, ...], ...]
    levels: int


def class_grids(records: Records, samples: Sequence[CellSamples] | None = None) -> list[ClassGrid]:
    """Return a grid for each group of conditional cells that differ in nothing but their guidance.

    Args:
        records: A study's records, or what conditions have left of them.
        samples: Its samples, where they have been read before.
    """
    drawn = {s.label: s for s in (samples_of(records) if samples is None else samples) if s.labels is not None}
    rest = [a for a in varying_axes(records) if a != "guidance"]
    groups: dict[str, dict[float, CellSamples]] = {}
    for cell in records.plan["cells"]:
        if cell["label"] in drawn:
            said = ", ".join(f"{a} {setting_text(cell['settings'].get(a))}" for a in rest)
            groups.setdefault(said, {})[float(cell["settings"]["guidance"])] = drawn[cell["label"]]
    return [_grid(said, by_strength) for said, by_strength in groups.items()]


def the_grid(records: Records) -> ClassGrid:
    """Return the grid of a study, or of what conditions have left of it.

    Raises:
        DdpmkitError: when there is none, or more than one.
    """
    grids = class_grids(records)
    if not grids:
        raise DdpmkitError(
            f"no cell of study '{records.name}' has samples with labels",
            "ddpmkit ablate --conditional --guidances 0,1,3",
        )
    if len(grids) > 1:
        shown = "; ".join(grid.said for grid in grids[:3]) + ("; .." if len(grids) > 3 else "")
        raise DdpmkitError(f"{len(grids)} rows of guidances could be drawn: {shown}", "choose: --where schedule=linear")
    return grids[0]


def _grid(said: str, by_strength: dict[float, CellSamples]) -> ClassGrid:
    strengths = tuple(sorted(by_strength))
    labels = {w: np.asarray(by_strength[w].labels) for w in strengths}
    classes = tuple(sorted({int(c) for y in labels.values() for c in y}))
    pictures = tuple(tuple(by_strength[w].images[labels[w] == c][:ACROSS] for w in strengths) for c in classes)
    return ClassGrid(said, strengths, classes, pictures, by_strength[strengths[0]].levels)
