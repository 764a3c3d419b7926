"""The cells' metrics side by side: a dot a train seed, the mean and its interval, and what to hold them against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpmkit.report.draw.labels import plain
from ddpmkit.report.draw.palette import INK, MUTED, RULE, SERIES
from ddpmkit.report.read.directions import in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpmkit.report.judge.summary import Summary


def metrics_figure(s: Summary) -> Figure:
    """Draw one panel a metric; dotted lines are the references."""
    from matplotlib.figure import Figure

    shown = [m for m in s.metrics if s.intervals[m]]
    figure = Figure(figsize=(2.4 * len(shown) + 1.1, 0.42 * len(s.cells) + 1.35), dpi=200)
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    top = 0.95
    places = {cell: -i for i, cell in enumerate(s.cells)}
    for axis, metric in zip(axes, shown, strict=True):
        for cell, interval in s.intervals[metric].items():
            colour = SERIES[s.cells.index(cell)] if len(s.cells) <= len(SERIES) else SERIES[0]
            y = places[cell]
            seeds = list(s.values[metric][cell].values())
            if interval.low is not None and interval.high is not None:
                axis.plot([interval.low, interval.high], [y, y], color=colour, lw=2, alpha=0.5, solid_capstyle="butt")
            axis.plot(seeds, [y + 0.16] * len(seeds), "o", ms=3.5, color=colour, alpha=0.55, mew=0)
            axis.plot([interval.mean], [y], "D", ms=4, color=colour)
        low, high = axis.get_xlim()
        shelf = 0
        for name, values in s.references.items():
            if metric in values and abs(values[metric] - (low + high) / 2) < 1.6 * (high - low):
                axis.axvline(values[metric], color=MUTED, lw=1, ls=":")
                axis.annotate(
                    plain(name),
                    (values[metric], 0.62 + 0.24 * shelf),
                    (3, 0),
                    textcoords="offset points",
                    fontsize=7,
                    color=MUTED,
                    ha="left",
                    va="bottom",
                )
                shelf += 1
        label = plain(metric) + s.unit(metric) + in_words(s.way(metric))
        axis.set_xlabel(label, fontsize=8, color=INK)
        axis.tick_params(labelsize=7.5, labelcolor=INK, color=RULE)
        axis.locator_params(axis="x", nbins=5)
        axis.spines["bottom"].set_color(RULE)
        top = max(top, 0.71 + 0.24 * shelf)
        axis.grid(axis="x", color=RULE, lw=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_ylim(-len(s.cells) + 0.45, top)
    axes[0].set_yticks(list(places.values()), [plain(c) for c in places], fontsize=8.5, color=INK)
    figure.tight_layout(pad=0.5, w_pad=1.2)
    figure.text(
        0.005,
        -0.02,
        "dots: train seeds; diamond: mean; bar: 95 % Student-t interval",
        fontsize=7,
        color=MUTED,
        va="top",
    )
    return figure
