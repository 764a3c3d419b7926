"""Curves by step or by t: a colour a name, a thin line a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddpmkit.report.draw.labels import short
from ddpmkit.report.draw.palette import MUTED, SERIES
from ddpmkit.report.draw.panel import finish, legend, panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lines(
    curves: Mapping[str, Sequence[tuple[Any, Any]]], x: str, y: str, yscale: str = "linear", xscale: str = "linear"
) -> Figure:
    """Draw name -> curves, each along x and along y; of more names than there are colours the first stands out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, axis = panel(2.8)
    many = len(curves) > len(SERIES)
    for i, (name, drawn) in enumerate(curves.items()):
        colour = SERIES[i % len(SERIES)] if not many or i == 0 else MUTED
        for n, (at, values) in enumerate(drawn):
            label = short(name, 30) if n == 0 and not many else None
            axis.plot(at, values, color=colour, lw=1.1, alpha=0.85, label=label)
    axis.set_yscale(yscale)
    axis.set_xscale(xscale)
    if yscale == "log":
        low, high = axis.get_ylim()
        low = max(low, high * 1e-6)  # what is next to nothing must not flatten the rest
        axis.set_ylim(low, high)
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
        axis.yaxis.set_minor_formatter(NullFormatter())
    for scale, side in ((xscale, axis.xaxis), (yscale, axis.yaxis)):
        if scale == "log":
            side.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    if not many:
        legend(axis)
    return finish(figure, axis, "y")
