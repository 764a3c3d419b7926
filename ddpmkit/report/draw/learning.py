"""Learning curves: what was learned in so many steps, and in so much time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ddpmkit.report.draw.labels import plain, short
from ddpmkit.report.draw.palette import INK, series
from ddpmkit.report.draw.panel import finish
from ddpmkit.report.judge.learning import Learned

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_figure(curves: Mapping[str, Mapping[str, Sequence[Learned]]], heads: Mapping[str, str]) -> Figure:
    """Draw a row a metric, on the left against training steps, on the right against seconds of training.

    A colour for what else the cells are, a thin line a train seed, a point a training.

    Args:
        curves: Metric -> name -> curves.
        heads: Metric -> what stands beside its axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 0.6 + 2.1 * len(curves)), dpi=160)
    grid = figure.subplots(len(curves), 2, sharex="col", sharey="row", squeeze=False)
    names = list(dict.fromkeys(name for by_name in curves.values() for name in by_name))
    colours = dict(zip(names, series(len(names)), strict=True))
    for (left, right), (metric, by_name) in zip(grid, curves.items(), strict=True):
        for name, drawn in by_name.items():
            for n, one in enumerate(drawn):
                label = short(name, 44) if n == 0 else None
                left.plot(one.steps, one.values, color=colours[name], lw=1.1, marker="o", ms=3, alpha=0.85, label=label)
                timed = [(s, v) for s, v in zip(one.seconds, one.values, strict=True) if s is not None]
                if timed:
                    right.plot(*zip(*timed, strict=True), color=colours[name], lw=1.1, marker="o", ms=3, alpha=0.85)
        left.set_ylabel(plain(heads.get(metric, metric)))
        finish(figure, left, "y")
        finish(figure, right, "y")
    for axis, label in zip(grid[-1], ("training steps", "seconds of training"), strict=True):
        axis.set_xlabel(label)
        axis.set_xlim(left=0)
    grid[0][0].legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=min(2, len(names)), fontsize=7.5, frameon=False,
        labelcolor=INK, handlelength=1.6, borderaxespad=0.2,
    )  # fmt: skip
    figure.align_ylabels()
    figure.tight_layout(pad=0.8)
    return figure
