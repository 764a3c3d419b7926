"""The design choices themselves, against t: schedules, reverse variances and weights, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

from ddpmkit.report.draw.labels import plain
from ddpmkit.report.draw.palette import DASHES, INK, MUTED, RULE, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpmkit.diffusion.curves import ScheduleCurves


def schedules_figure(chains: Mapping[str, ScheduleCurves]) -> Figure:
    """Draw alpha-bar, log-SNR, the reverse variances and the weights on the eps-error against t/T, a colour a schedule.

    Each sigma and each weighting has dashes of its own; the range of a sigma that varies is shaded.

    Args:
        chains: Label -> its curves, all with the same sigmas and weightings.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(10, 6.4), dpi=160)
    axes = figure.subplots(2, 2).flatten()
    first = next(iter(chains.values()))
    for (label, chain), colour in zip(chains.items(), series(len(chains)), strict=True):
        axes[0].plot(chain.t, chain.alpha_bars, color=colour, label=plain(label))
        axes[1].plot(chain.t, chain.log_snr, color=colour)
        for dashes, (low, high) in zip(cycle(DASHES), chain.variances.values(), strict=False):
            axes[2].plot(chain.t, low, ls=dashes, color=colour)
            axes[2].fill_between(chain.t, low, high, color=colour, alpha=0.12, lw=0)
        for dashes, weights in zip(cycle(DASHES), chain.eps_weights.values(), strict=False):
            axes[3].plot(chain.t, weights, ls=dashes, color=colour)
    titles = (
        "alpha-bar: what is left of the signal",
        "log SNR",
        "reverse variance sigma^2",
        f"weight on the eps-error (sigma {plain(next(iter(first.variances)))})",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=9, color=INK)
    for axis in axes[2:]:
        axis.set_yscale("log")
        axis.set_xlabel("t / T", fontsize=8, color=MUTED)
    for axis, names in ((axes[2], first.variances), (axes[3], first.eps_weights)):
        lines = [Line2D([], [], color=MUTED, ls=s, label=plain(n)) for s, n in zip(cycle(DASHES), names, strict=False)]
        axis.legend(handles=lines, fontsize=7, frameon=False, labelcolor=INK, handlelength=3)
    axes[0].legend(fontsize=7.5, frameon=False, labelcolor=INK)
    for axis in axes:
        axis.tick_params(which="both", labelsize=7.5, labelcolor=INK, color=RULE)
        axis.grid(color=RULE, lw=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axis.spines[side].set_color(RULE)
    figure.tight_layout(pad=0.8)
    return figure
