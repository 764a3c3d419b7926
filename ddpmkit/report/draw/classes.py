"""A row a class, a column a strength of guidance."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit.report.draw.labels import plain, short
from ddpmkit.report.draw.palette import INK, MUTED
from ddpmkit.report.draw.tiles import tile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpmkit.plugin.interfaces import Levels
    from ddpmkit.report.read.classes import ClassGrid

SIDE = 0.36  # inches of one picture
LETTERS, LINE = 16, 0.14  # of the text above: letters an inch, inches a line
BLOCK, HEAD, MARGIN = 0.16, 0.46, 0.72  # between two strengths, above the first class, left of the first strength
LONGEST, NAME = 22, 13  # letters of a class's name, and how many of them take an inch of the margin


def classes_figure(grid: ClassGrid) -> Figure:
    """Draw the first samples of each class at each strength; those in one place began from the same noise."""
    from matplotlib.figure import Figure

    across = max((len(p) for row in grid.pictures for p in row), default=1)
    height, width = grid.pictures[0][0].shape[2:]
    wide, high = across * SIDE, SIDE * height / width
    columns, rows = len(grid.guidances), len(grid.classes)
    names = [short(name, LONGEST) for name in grid.names or map(str, grid.classes)]
    margin = MARGIN + max(0, max(map(len, names)) - 2) / NAME
    across_all = margin + columns * wide + (columns - 1) * BLOCK
    lines = textwrap.wrap(told(grid), max(20, int((across_all - margin) * LETTERS)))
    head = HEAD + LINE * (len(lines) - 1)
    total = across_all, head + rows * high
    figure = Figure(figsize=total, dpi=200)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=margin / total[0],
        right=1,
        bottom=0,
        top=1 - head / total[1],
        wspace=BLOCK / wide,
        hspace=0.0,
    )
    for row, name, pictures in zip(axes, names, grid.pictures, strict=True):
        for axis, images in zip(row, pictures, strict=True):
            _tiles(axis, images, grid.levels, across)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, color=INK, labelpad=4)
    for axis, over in zip(axes[0], grid.heads, strict=True):
        axis.set_title(over, fontsize=9, color=INK, pad=4)
    middle = (margin + total[0]) / 2 / total[0]
    text = "\n".join(plain(line) for line in lines)
    figure.text(middle, 1 - 0.06 / total[1], text, ha="center", va="top", fontsize=8.5, color=MUTED)
    down = (total[1] - head) / 2 / total[1]
    figure.text(0.14 / total[0], down, "class", rotation=90, ha="center", va="center", fontsize=8.5, color=MUTED)
    return figure


def told(grid: ClassGrid) -> str:
    """What the picture is of: the cells, and the classes that it has no room for."""
    out = "guidance w" + (f"; {grid.said}" if grid.said else "")
    if grid.left_out:
        out += f"; the first {len(grid.classes)} of {len(grid.classes) + grid.left_out} classes"
    return out


def _tiles(axis: Any, images: Levels, levels: int, across: int) -> None:
    """Show the images of one class and strength in a row; where there are fewer than ``across``, its end is empty."""
    height, width = tile(images[:1], levels, 1).shape[:2]
    canvas = np.full((height + 1, across * (width + 1) - 1, 3), 255, np.uint8)
    if len(images):
        row = tile(images, levels, across)
        canvas[: row.shape[0], : row.shape[1]] = row
    axis.imshow(canvas, interpolation="nearest", aspect="auto")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
