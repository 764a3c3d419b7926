"""A metric seed by seed: lines that run parallel are why differences are paired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ddpmkit.report.draw.labels import plain, short
from ddpmkit.report.draw.palette import MUTED, SERIES
from ddpmkit.report.draw.panel import WIDTH, finish, legend, panel
from ddpmkit.report.draw.scales import MANY_TIMES, logarithmic, spans

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def slopes(values: Mapping[str, Mapping[int, float]], label: str) -> Figure:
    """Draw cell -> train seed -> value, a line a seed; the label says of what."""
    cells = list(values)
    figure, axis = panel(2.7, max(WIDTH, 1.4 + 0.42 * len(cells)))
    seeds = sorted({s for v in values.values() for s in v})
    for i, seed in enumerate(seeds):
        line = [values[c].get(seed, np.nan) for c in cells]
        colour = SERIES[i] if len(seeds) <= len(SERIES) else MUTED
        axis.plot(range(len(cells)), line, "-o", color=colour, ms=4, lw=1.3, alpha=0.9, label=f"seed {seed}")
    every = [v for by_seed in values.values() for v in by_seed.values()]
    if spans(every, MANY_TIMES):
        logarithmic(axis, "y", every)
    axis.set_ylabel(plain(label))
    axis.set_xlim(-0.35, len(cells) - 0.65)
    steep = len(cells) > 4 or max(map(len, cells)) > 14
    axis.set_xticks(
        range(len(cells)),
        [short(c, 34) for c in cells],
        rotation=32 if steep else 0,
        ha="right" if steep else "center",
        rotation_mode="anchor" if steep else "default",
    )
    if len(seeds) <= len(SERIES):
        legend(axis)
    return finish(figure, axis, "y")
