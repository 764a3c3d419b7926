"""Where two cells' bits/dim differ: by bins of log SNR, and summed from noise to the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit.report.draw.labels import short
from ddpmkit.report.draw.palette import INK, MUTED, RULE, series
from ddpmkit.report.draw.panel import finish
from ddpmkit.report.judge.split import Split
from ddpmkit.report.read.spent import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY = 4  # cells whose bands can be told apart
TICKS = 4  # log SNRs between two
ASIDE = 2.0  # log SNRs from the outermost bin to what stands beside them
STANDARD_ERRORS = 1.96
SHADE = 0.16


def split_figure(splits: Mapping[str, Split], baseline: str) -> Figure:
    """Draw cell -> its difference from the baseline: on the left by bins of log SNR, on the right their running sum.

    L_T and L_0 stand beside the bins as points, and the sum ends at the difference of the bounds. A band is the 95 %
    interval over train seeds, with one seed that of the Monte-Carlo error; of many cells it is left out.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 2.9), dpi=200)
    left, right = figure.subplots(1, 2)
    colours = series(len(splits) + 1)[1:]  # the first is the baseline's wherever it is drawn
    every = list(splits.values())
    edges = np.array(every[0].along.edges)
    ends = np.r_[edges[0] - 1, edges, edges[-1] + 1]  # of the bins; the open ones are drawn as wide as the others
    places = ends[0] - ASIDE, ends[-1] + ASIDE
    for number, ((cell, split), colour) in enumerate(zip(splits.items(), colours, strict=True)):
        along, banded = split.along, len(splits) <= MANY
        shift = 0.35 * (number - (len(splits) - 1) / 2) * min(1.0, 4 / len(splits))
        gap, half = np.array(along.difference), _half(along.half, along.standard_error)
        left.stairs(gap[1:-1], ends, baseline=None, color=colour, lw=1.3, label=short(cell, 34))
        _aside(left, places, shift, gap[[0, -1]], half[[0, -1]], colour)
        if banded:
            whole, half_ = np.append(gap[1:-1], gap[-2]), np.append(half[1:-1], half[-2])
            left.fill_between(ends, whole - half_, whole + half_, step="post", color=colour, alpha=SHADE, lw=0)
        gap, half = np.array(along.cumulative), _half(along.cumulative_half, along.cumulative_error)
        right.plot(ends, gap[:-1], color=colour, lw=1.3)
        _aside(right, places, shift, gap[[0, -1]], half[[0, -1]], colour)
        if banded:
            low, high = gap[:-1] - half[:-1], gap[:-1] + half[:-1]
            right.fill_between(ends, low, high, color=colour, alpha=SHADE, lw=0)
    for axis, last in ((left, "$L_0$"), (right, "all")):
        axis.axhline(0, color=INK, lw=0.8, zorder=1)
        ticks = np.arange(np.ceil(edges[0] / TICKS) * TICKS, edges[-1] + 1, TICKS)
        axis.set_xticks(
            [places[0], *ticks, places[1]], ["$L_T$", *(f"{v:g}".replace("-", "\N{MINUS SIGN}") for v in ticks), last]
        )
        for place in (ends[0] - ASIDE / 2, ends[-1] + ASIDE / 2):
            axis.axvline(place, color=RULE, lw=0.8)
        axis.set_xlim(places[0] - 1.4, places[1] + 1.4)
        axis.set_xlabel("log SNR: noise on the left, the image on the right")
        finish(figure, axis, "y")
    left.set_ylabel("difference, bits/dim in each bin")
    right.set_ylabel("summed from the left, bits/dim")
    over = len(every[0].seeds)
    said = f"difference from {short(baseline, 40)}; " + (
        f"bands: 95 % over {over} train seeds" if over > 1 else "bands: 95 % of the Monte-Carlo error, one train seed"
    )
    figure.tight_layout(pad=0.6, w_pad=1.6)
    _heading(figure, left, said if len(splits) <= MANY else said.replace("bands", "bars"), len(splits))
    return figure


def _half(seeds: Sequence[float | None], errors: Sequence[float | None]) -> Array:
    """Half of each band; NaN, which is not drawn, where the error is not known."""
    if all(h is None for h in seeds):
        return np.asarray(STANDARD_ERRORS * np.array(errors, np.float64))
    return np.array([0.0 if h is None else h for h in seeds])


def _aside(axis: Any, places: tuple[float, float], shift: float, values: Any, halves: Any, colour: str) -> None:
    axis.errorbar(
        np.array(places) + shift,
        values,
        halves,
        fmt="o",
        color=colour,
        ms=3.2,
        elinewidth=1.2,
        capsize=0,
        clip_on=False,
    )


def _heading(figure: Figure, axis: Any, said: str, cells: int) -> None:
    """What is drawn, and the cells' colours, above both panels."""
    handles, names = axis.get_legend_handles_labels()
    columns = min(cells, max(1, int(112 / (8 + max(map(len, names))))))
    legend = figure.legend(
        handles, names, loc="lower left", bbox_to_anchor=(0.0, 0.99), ncols=columns, fontsize=7.5, frameon=False,
        labelcolor=INK, handlelength=1.4, columnspacing=1.4, borderaxespad=0.2, title=said, title_fontsize=8,
        alignment="left",
    )  # fmt: skip
    legend.get_title().set_color(MUTED)
