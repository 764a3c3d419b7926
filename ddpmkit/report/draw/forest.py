"""Differences with their intervals, one below the other, against zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddpmkit.report.draw.labels import short
from ddpmkit.report.draw.palette import BETTER, INK, MUTED, RULE, WORSE
from ddpmkit.report.draw.panel import finish, panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpmkit.statistics import Contrast

VERDICTS = {"better": BETTER, "worse": WORSE}


def forest(gaps: Mapping[str, Contrast], label: str, way: str, margin: float | None) -> Figure:
    """Draw name -> contrast: filled where the verdict is better or worse, a band where a gap does not matter.

    Args:
        gaps: Name -> contrast with a number.
        label: What the numbers are.
        way: Which way is better: lower, higher or none.
        margin: Half the width of the band.
    """
    figure, axis = panel(0.75 + 0.4 * len(gaps))
    # Zero is marked at each line alone, so that it crosses no name.
    axis.vlines(
        [0.0] * len(gaps), [-i - 0.2 for i in range(len(gaps))], [0.14 - i for i in range(len(gaps))], INK, lw=1
    )
    for row, c in enumerate(gaps.values()):
        colour = VERDICTS.get(c.verdict, MUTED)
        low, high = c.interval
        if low is not None and high is not None:
            axis.plot([low, high], [-row, -row], color=colour, lw=2, solid_capstyle="round")
        mark = colour if c.verdict in VERDICTS else "none"
        axis.plot([c.difference], [-row], "o", ms=5.5, color=colour, mfc=mark, mew=1.4)
    _scale(axis, list(gaps.values()))
    # A cell's name stands above its line, not beside it: a long one takes no room from the drawing.
    for row, cell in enumerate(gaps):
        where = axis.get_yaxis_transform()
        axis.text(0, 0.3 - row, short(cell, 60), transform=where, color=INK, fontsize=8, va="center")
    axis.set_ylim(-len(gaps) + 0.6, 0.62)
    axis.set_yticks([])
    axis.locator_params(axis="x", nbins=5)  # large numbers would run into one another
    axis.set_xlabel(label + {"lower": "; left is better", "higher": "; right is better"}.get(way, ""))
    if margin is not None:  # inside the band a gap does not matter
        axis.axvspan(-margin, margin, color=RULE, lw=0, alpha=0.6, zorder=0)
    return finish(figure, axis, "x")


def _scale(axis: Any, gaps: Sequence[Contrast]) -> None:
    """Let the points and the typical interval set the scale: one wild interval must not flatten all others."""
    ends = [(low, high) for low, high in (c.interval for c in gaps) if low is not None and high is not None]
    if not ends:
        return
    halves = sorted((high - low) / 2 for low, high in ends)
    reach = 1.15 * max(abs(c.difference) for c in gaps) + 2.5 * halves[len(halves) // 2]
    every = [e for both in ends for e in both]
    low, high = max(min([*every, 0.0]), -reach), min(max([*every, 0.0]), reach)
    if high <= low:
        return
    left, right = low - 0.06 * (high - low), high + 0.06 * (high - low)
    axis.set_xlim(left, right)
    for row, c in enumerate(gaps):  # an arrow where a line goes on beyond the frame
        start, end = c.interval
        if start is not None and start < left:
            axis.plot([left], [-row], "<", ms=5, color=MUTED, clip_on=False)
        if end is not None and end > right:
            axis.plot([right], [-row], ">", ms=5, color=MUTED, clip_on=False)
