"""Labelled rows of pictures under their column heads: an image dissolving, samples appearing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpmkit.report.draw.labels import plain
from ddpmkit.report.draw.palette import INK, MUTED, RULE
from ddpmkit.report.draw.tiles import as_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpmkit.study.strips import Strips


def strips_figure(strips: Strips) -> Figure:
    """Draw labelled rows of pictures under their column heads."""
    from matplotlib.figure import Figure

    across = len(strips.heads)
    figure = Figure(figsize=(0.72 * across + 1.2, 0.78 * len(strips.rows) + 0.35), dpi=200)
    axes = figure.subplots(len(strips.rows), across, squeeze=False)
    for number, (row, (label, images)) in enumerate(zip(axes, strips.rows.items(), strict=True)):
        for column, (axis, image) in enumerate(zip(row, as_rgb(images, strips.levels), strict=True)):
            axis.imshow(image, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set(color=RULE, lw=0.5)
            if number == 0:
                axis.set_title(strips.heads[column], fontsize=7.5, color=MUTED, pad=3)
        row[0].set_ylabel(plain(label), rotation=0, ha="right", va="center", fontsize=8.5, color=INK)
    figure.subplots_adjust(wspace=0.06, hspace=0.06)
    return figure
