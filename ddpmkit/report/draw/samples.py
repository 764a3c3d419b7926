"""The samples of a study as pictures: each cell's own, and the cells below one another from the same noise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit import files
from ddpmkit.report.draw.labels import plain
from ddpmkit.report.draw.palette import INK, MUTED
from ddpmkit.report.draw.tiles import tile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpmkit.report.read.samples import CellSamples

GRID = 10  # samples across and down in a cell's own picture
STRIP = 16  # samples across in the picture of all cells, two rows of them
WIDE = 480  # pixels across a cell's own picture, about


def write_samples(path: Path, samples: CellSamples) -> None:
    """Write a cell's first hundred samples as a PNG, each pixel enlarged by a whole number: nothing here is a line."""
    from PIL import Image

    pixels = tile(samples.images[: GRID * GRID], samples.levels, GRID)
    scale = max(1, round(WIDE / pixels.shape[1]))
    image = Image.fromarray(pixels).resize((pixels.shape[1] * scale, pixels.shape[0] * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    files.write_bytes(path, buffer.getvalue())


def first_samples(samples: CellSamples, across: int = STRIP) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a cell's first samples as pixels, as many as all cells are shown with."""
    return tile(samples.images[: 2 * STRIP], samples.levels, across)


def samples_figure(cells: Sequence[CellSamples]) -> Figure:
    """Draw one cell below another, the same noise down every column; a cell whose noise is another one says so."""
    from matplotlib.figure import Figure

    pictures = [first_samples(cell) for cell in cells]
    height, width = pictures[0].shape[:2]
    figure = Figure(figsize=(8, len(cells) * (7.8 * height / width + 0.3) + 0.1), dpi=200)
    axes = figure.subplots(len(cells), 1, squeeze=False)[:, 0]
    for axis, cell, pixels in zip(axes, cells, pictures, strict=True):
        axis.imshow(pixels, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
        axis.set_title(plain(cell.label), loc="left", fontsize=8.5, color=INK, pad=3)
        if not cell.usual:
            axis.set_title(f"other noise: {cell.seeds}", loc="right", fontsize=7.5, color=MUTED, pad=3)
    if cells[0].usual:
        said = "first samples, the same noise in each column"
        axes[0].set_title(said, loc="right", fontsize=7.5, color=MUTED, pad=3)
    figure.tight_layout(pad=0.4, h_pad=0.5)
    return figure
