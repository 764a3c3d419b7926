"""Means by two axes, as shaded numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ddpmkit.report.draw.labels import plain, short
from ddpmkit.report.draw.palette import MUTED, ON_DARK, ON_LIGHT, SHADES
from ddpmkit.report.draw.panel import finish, panel
from ddpmkit.report.draw.scales import MANY_TIMES, spans
from ddpmkit.text.numbers import fixed, significant

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def shaded(
    grid: Mapping[str, Mapping[str, float]], rows: str, cols: str, label: str, among: Sequence[float] = ()
) -> Figure:
    """Draw row -> column -> mean; the darker, the larger, on one scale with the others that it is ``among``.

    Where the largest is many times the smallest, shades go by the logarithm and a number keeps three digits of its own.
    The label says of what.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    across = list(dict.fromkeys(c for row in grid.values() for c in row))
    own = [v for row in grid.values() for v in row.values()]
    every = [v for v in (*own, *among) if np.isfinite(v)]
    low, high = (min(every), max(every)) if every else (0.0, 1.0)
    steep = spans(every, MANY_TIMES)
    figure, axis = panel(0.7 + 0.42 * len(grid), max(2.9, 0.5 + 0.72 * len(across)))
    shades, digits = colormaps[SHADES], _digits(low, high)
    for y, row in enumerate(grid.values()):
        for x, column in enumerate(across):
            if column not in row or not np.isfinite(row[column]):
                continue
            value = row[column]
            share = (
                np.log(value / low) / np.log(high / low)
                if steep
                else (value - low) / (high - low)
                if high > low
                else 0.5
            )
            depth = 0.12 + 0.7 * share
            axis.add_patch(Rectangle((x - 0.48, -y - 0.46), 0.96, 0.92, fc=to_hex(shades(depth)), lw=0))
            ink = ON_DARK if depth > 0.52 else ON_LIGHT
            number = significant(value, 3) if steep else fixed(value, digits)
            axis.text(x, -y, number, ha="center", va="center", color=ink, fontsize=8.5)
    axis.set_xlim(-0.5, len(across) - 0.5)
    axis.set_ylim(-len(grid) + 0.5, 0.5)
    axis.set_xticks(range(len(across)), [short(c, 16) for c in across])
    axis.set_yticks([-i for i in range(len(grid))], [short(r, 22) for r in grid])
    axis.set_title(plain(label), loc="left", fontsize=8, color=MUTED, pad=4)
    axis.set_xlabel(plain(cols))
    axis.set_ylabel(plain(rows))
    for side in axis.spines.values():
        side.set_visible(False)
    return finish(figure, axis, "")


def _digits(low: float, high: float) -> int:
    """Decimals that tell values between two ends apart, below zero for tens and hundreds."""
    return 2 - int(np.floor(np.log10(high - low))) if high > low else 2 - int(np.floor(np.log10(abs(high) or 1.0)))
