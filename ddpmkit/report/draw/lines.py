"""Curves by step or by t: a colour a name, a thin line a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit.report.draw.labels import short
from ddpmkit.report.draw.palette import MUTED, SERIES
from ddpmkit.report.draw.panel import finish, legend, panel
from ddpmkit.text.naming import in_common

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lines(
    curves: Mapping[str, Sequence[tuple[Any, Any]]], x: str, y: str, yscale: str = "linear", xscale: str = "linear"
) -> Figure:
    """Draw name -> curves, each along x and along y; of more names than there are colours the first stands out.

    Curves that are the same under several names are drawn once, and named by what the names share.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    curves = _apart(curves)
    figure, axis = panel(2.8)
    many = len(curves) > len(SERIES)
    for i, (name, drawn) in enumerate(curves.items()):
        colour = SERIES[i % len(SERIES)] if not many or i == 0 else MUTED
        for n, (at, values) in enumerate(drawn):
            # What is grey is named once.
            named = short(name, 38) if not many or i == 0 else f"{len(curves) - 1} others" if i == 1 else None
            label = named if n == 0 else None
            grey = many and i > 0
            axis.plot(
                at,
                values,
                color=colour,
                lw=0.5 if grey else 1.1,
                alpha=0.5 if grey else 0.85,
                label=label,
                zorder=2.0 if grey else 2.5,
            )
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
    legend(axis)
    return finish(figure, axis, "y")


def _apart(curves: Mapping[str, Sequence[tuple[Any, Any]]]) -> dict[str, Sequence[tuple[Any, Any]]]:
    """The curves that can be told apart: one line over another hides it, and its colour in the legend is not found."""
    groups: list[list[str]] = []
    for name, drawn in curves.items():
        same = next((g for g in groups if _same(curves[g[0]], drawn)), None)
        if same is None:
            groups.append([name])
        else:
            same.append(name)
    names = [in_common(group) for group in groups]
    return {
        name if names.count(name) == 1 else ", ".join(group): curves[group[0]]
        for name, group in zip(names, groups, strict=True)
    }


def _same(a: Sequence[tuple[Any, Any]], b: Sequence[tuple[Any, Any]]) -> bool:
    return len(a) == len(b) and all(
        len(x) == len(u) and np.array_equal(x, u) and np.array_equal(y, v, equal_nan=True)
        for (x, y), (u, v) in zip(a, b, strict=True)
    )
