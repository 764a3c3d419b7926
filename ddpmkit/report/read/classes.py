"""Samples by class and strength of guidance: what the picture with a row a class is drawn from."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.read.axes import setting_text, varying_axes
from ddpmkit.report.read.by_class import UNTOLD, class_name
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.samples import CellSamples, samples_of

if TYPE_CHECKING:
    import numpy as np

    from ddpmkit.plugin.interfaces import Levels

    Labels = np.ndarray[Any, np.dtype[np.int64]]

ACROSS = 5  # pictures of one class and strength
MOST = 20  # classes that are shown; a thousand would make no picture


@dataclass(frozen=True)
class ClassGrid:
    """Samples of cells that differ in their guidance alone.

    Attributes:
        said: what else the cells are, for a title; empty where nothing else varies.
        guidances: strengths w, from the weakest.
        heads: what stands above each strength: w, whether its images have labels, whether its noise is the others'.
        classes: the labels that are shown, rising; ``names`` as they are shown.
        left_out: how many classes more there are.
        pictures: for each class and strength, the first samples of that class, (at most ACROSS, C, H, W); perhaps none.
            Where no image has a label, the first of all, in order.
        levels: K, the number of grey levels.
        where: the conditions that leave this grid alone.
    """

    said: str
    guidances: tuple[float, ...]
    heads: tuple[str, ...]
    classes: tuple[int, ...]
    left_out: int
    pictures: tuple[tuple[Levels, ...], ...]
    levels: int
    where: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def class_grids(records: Records, samples: Sequence[CellSamples] | None = None) -> list[ClassGrid]:
    """Return a grid for each group of conditional cells that differ in nothing but their guidance.

    Args:
        records: A study's records, or what conditions have left of them.
        samples: Its samples, where they have been read before.
    """
    drawn = {s.label: s for s in (samples_of(records) if samples is None else samples)}
    rest = [a for a in varying_axes(records) if a != "guidance"]
    groups: dict[tuple[str, ...], dict[float, CellSamples]] = {}
    for cell in records.plan["cells"]:
        settings, found = cell.get("settings", {}), drawn.get(cell["label"])
        if found and settings.get("conditional"):
            at = tuple(setting_text(settings.get(a)) for a in rest)
            groups.setdefault(at, {})[float(settings["guidance"])] = found
    told = {at: by for at, by in groups.items() if any(_labels(w, found) is not None for w, found in by.items())}
    differing = [i for i in range(len(rest)) if len({at[i] for at in told}) > 1]
    return [
        _grid(
            ", ".join(f"{a} {value}" for a, value in zip(rest, at, strict=True)),
            by_strength,
            tuple(f"{rest[i]}={at[i]}" for i in differing),
            records.plan.get("classes", ()),
        )
        for at, by_strength in told.items()
    ]


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
        conditions = " ".join(f"--where {shlex.quote(condition)}" for condition in grids[0].where)
        raise DdpmkitError(f"{len(grids)} rows of guidances could be drawn: {shown}", f"choose: {conditions}")
    return grids[0]


def _labels(strength: float, found: CellSamples) -> Labels | None:
    """The labels that a cell's samples were drawn by; None where the network was told none."""
    return None if strength == UNTOLD else found.labels


def _grid(
    said: str, by_strength: dict[float, CellSamples], where: tuple[str, ...], classes: Sequence[str]
) -> ClassGrid:
    strengths = tuple(sorted(by_strength))
    labels = {w: _labels(w, by_strength[w]) for w in strengths}
    every = sorted({int(c) for y in labels.values() if y is not None for c in y})
    rows = []
    for row, label in enumerate(every[:MOST]):
        of_class = []
        for w in strengths:
            images, y = by_strength[w].images, labels[w]
            of_class.append(images[row * ACROSS :] if y is None else images[y == label])
        rows.append(tuple(images[:ACROSS] for images in of_class))
    heads = tuple(
        f"w = {w:g}" + (", no label" if labels[w] is None else "") + ("" if by_strength[w].usual else ", other noise")
        for w in strengths
    )
    left_out = max(0, len(every) - MOST)
    levels = by_strength[strengths[0]].levels
    names = tuple(class_name(classes, label) for label in every[:MOST])
    return ClassGrid(said, strengths, heads, tuple(every[:MOST]), left_out, tuple(rows), levels, where, names)
