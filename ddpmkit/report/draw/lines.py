"""Curves by step or by t: a colour a name, a thin line a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit.report.draw.labels import short
from ddpmkit.report.draw.palette import MUTED, SERIES
from ddpmkit.report.draw.panel import finish, legend, panel
from ddpmkit.report.draw.scales import logarithmic
from ddpmkit.text.naming import in_common

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lines(
    curves: Mapping[str, Sequence[tuple[Any, Any]]], x: str, y: str, yscale: str = "linear", xscale: str = "linear"
) -> Figure:
    """Draw name -> curves, each along x and along y; of more names than there are colours the first stands out.

    Curves that are the same under several names are drawn once, and named by what the names share.
    """
    curves = _apart(curves)
    figure, axis = panel(2.8)
    many = len(curves) > len(SERIES)
    for i, (name, drawn) in enumerate(curves.items()):
        grey = many and i > 0
        colour = MUTED if grey else SERIES[i % len(SERIES)]
        for n, (at, values) in enumerate(drawn):
            # What is grey is named once.
            named = f"{len(curves) - 1} others" if grey else short(name, 38)
            label = named if n == 0 and not (grey and i > 1) else None
            axis.plot(
                at,
                values,
                color=colour,
                lw=0.5 if grey else 1.1,
                alpha=0.5 if grey else 0.85,
                label=label,
                zorder=2.0 if grey else 2.5,
            )
    axis.set_xscale(xscale)
    axis.set_yscale(yscale)
    if xscale == "log":
        logarithmic(axis, "x", axis.get_xlim())
    if yscale == "log":
        low, high = axis.get_ylim()
        axis.set_ylim(max(low, high * 1e-6), high)  # what is next to nothing must not flatten the rest
        logarithmic(axis, "y", axis.get_ylim())
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
