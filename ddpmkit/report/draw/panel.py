"""A small figure of one panel: its size, its grid, its legend; a column of the page wide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpmkit.report.draw.palette import INK, MUTED, RULE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.3  # inches; a column of the page


def panel(height: float, width: float = WIDTH) -> tuple[Figure, Any]:
    """Return a figure of so many inches, with its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=200)
    return figure, figure.subplots()


def legend(axis: Any) -> None:
    """Put the names above the panel, as many in a row as have room."""
    names = list(axis.get_legend_handles_labels()[1])
    columns = max(1, min(4, int(46 / (6 + max(map(len, names), default=0)))))
    axis.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, fontsize=7.5, frameon=False, labelcolor=INK,
        handlelength=1.2, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip


def finish(figure: Figure, axis: Any, grid: str) -> Figure:
    """Take away what carries no number, and return the figure; ``grid`` is x, y or nothing."""
    for side in ("top", "right", *(("left",) if grid == "x" else ())):
        axis.spines[side].set_visible(False)
    for spine in axis.spines.values():
        spine.set_color(RULE)
    axis.tick_params(axis="both", which="both", length=0, labelsize=8, colors=MUTED, labelcolor=INK, pad=4)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_color(MUTED)
        label.set_fontsize(8)
    if grid:
        axis.grid(axis=grid, color=RULE, lw=0.6)
        axis.set_axisbelow(True)
    return figure
