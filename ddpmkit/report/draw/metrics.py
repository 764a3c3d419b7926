"""The cells' metrics side by side: a dot a train seed, the mean and its interval, and what to hold them against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddpmkit.report.draw.labels import plain
from ddpmkit.report.draw.palette import INK, MUTED, RULE, SERIES
from ddpmkit.report.draw.scales import MANY_TIMES, logarithmic, spans
from ddpmkit.report.read.bounds import bounds
from ddpmkit.report.read.directions import in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpmkit.report.judge.summary import Summary


ACROSS = 5  # panels in a row
MARGIN = 0.24  # rows of cells that a reference's name takes
ROW, CLOSE = 0.42, 0.28  # inches of a cell's row, and of one where there are more than MANY
MANY = 12


def metrics_figure(s: Summary) -> Figure:
    """Draw one panel a metric; dotted lines are the references, and arrows where an interval leaves what can be."""
    from matplotlib.figure import Figure

    shown = [m for m in s.metrics if s.intervals[m]]
    down = -(-len(shown) // ACROSS)
    across = -(-len(shown) // down)
    size = (
        (2.4 if across > 1 else 3.6) * across + 1.1,
        down * ((ROW if len(s.cells) <= MANY else CLOSE) * len(s.cells) + 1.35),
    )
    figure = Figure(figsize=size, dpi=200)
    axes = figure.subplots(down, across, sharey=True, squeeze=False).flatten()
    places = {cell: -i for i, cell in enumerate(s.cells)}
    panels = [_panel(axis, s, metric, places) for axis, metric in zip(axes, shown, strict=False)]
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    most = max(shelves for _, shelves in panels)
    axes[0].set_ylim(-len(s.cells) + 0.45, 0.71 + MARGIN * most if most else 0.5)
    for axis in axes[::across]:
        axis.set_yticks(list(places.values()), [plain(c) for c in places], fontsize=8.5, color=INK)
    figure.tight_layout(pad=0.5, w_pad=1.2)
    said = "dots: train seeds; diamond: mean; bar: 95 % Student-t interval"
    beyond = "is drawn" if any(axis.get_xscale() == "log" for axis in axes) else "the metric can be"
    said += f"; arrow: the interval goes on beyond what {beyond}" if any(cut for cut, _ in panels) else ""
    figure.text(0.005, -0.02, said, fontsize=7, color=MUTED, va="top")
    return figure


def _panel(axis: Any, s: Summary, metric: str, places: Mapping[str, int]) -> tuple[bool, int]:
    """Draw one metric, and return whether an interval ends in an arrow, and how many references have a name above."""
    least, largest = bounds(s.originals.get(metric, metric))
    means = [interval.mean for interval in s.intervals[metric].values()]
    steep = spans(means, MANY_TIMES)
    if steep:  # where a logarithm knows no zero, an interval ends in an arrow
        logarithmic(axis, "x", means)
        least = max(least, min(means) / 3)
    cut = False
    for cell, interval in s.intervals[metric].items():
        colour = SERIES[s.cells.index(cell)] if len(s.cells) <= len(SERIES) else SERIES[0]
        y = places[cell]
        seeds = list(s.values[metric][cell].values())
        if interval.low is not None and interval.high is not None:
            ends = [max(interval.low, least), min(interval.high, largest)]
            axis.plot(ends, [y, y], color=colour, lw=2, alpha=0.5, solid_capstyle="butt")
            for end, own, mark in ((ends[0], interval.low, "<"), (ends[1], interval.high, ">")):
                if end != own:
                    axis.plot([end], [y], mark, ms=4.5, color=colour, mew=0, clip_on=False)
                    cut = True
        axis.plot(seeds, [y + 0.16] * len(seeds), "o", ms=3.5, color=colour, alpha=0.55, mew=0)
        axis.plot([interval.mean], [y], "D", ms=4, color=colour)
    shelves = _references(
        axis, {name: values[metric] for name, values in s.references.items() if metric in values}, -len(places)
    )
    axis.set_xlabel(plain(metric) + s.unit(metric) + in_words(s.way(metric)), fontsize=8, color=INK)
    axis.tick_params(labelsize=7.5, labelcolor=INK, color=RULE)
    if not steep:
        axis.locator_params(axis="x", nbins=5)
    axis.spines["bottom"].set_color(RULE)
    axis.grid(axis="x", color=RULE, lw=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return cut, shelves


def _references(axis: Any, values: Mapping[str, float], bottom: float) -> int:
    """Mark what the cells are held against, each line up to its own name, and return how many there are."""
    (low, high), steep = axis.get_xlim(), axis.get_xscale() == "log"
    if steep:
        near = {name: v for name, v in values.items() if low / 2 < v < high * 2}
    else:
        near = {name: v for name, v in values.items() if abs(v - (low + high) / 2) < 1.6 * (high - low)}
    left, right = min([low, *near.values()]), max([high, *near.values()])
    for shelf, (name, value) in enumerate(sorted(near.items(), key=lambda item: -item[1])):
        top = 0.62 + MARGIN * shelf
        axis.plot([value, value], [bottom, top + 0.2], color=MUTED, lw=1, ls=":")
        # A name at the right end goes to the left, and stays inside of its panel.
        end = value > (left**0.4 * right**0.6 if steep else left + 0.6 * (right - left))
        axis.annotate(
            plain(name),
            (value, top),
            (-3 if end else 3, 0),
            textcoords="offset points",
            fontsize=7,
            color=MUTED,
            ha="right" if end else "left",
            va="bottom",
        )
    return len(near)
