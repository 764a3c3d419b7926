"""The weight over log-SNR that each cell trained with, and below it what it lost there beside what could be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit.report.draw.labels import short
from ddpmkit.report.draw.palette import DASHES, INK, MUTED, series
from ddpmkit.report.draw.panel import finish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpmkit.study.loss_curves import LossCurves

TITLES = {"train": "loss on training images", "test": "loss on held-out images"}
OPTIMAL = {"train": "optimal: none lies below", "test": "optimal for the training images: a copier"}


def losses_figure(curves: LossCurves) -> Figure:
    """Draw the weights, the losses on training images and those on held-out ones, each over log SNR.

    A colour a cell, a thin line a train seed; the optimal losses in ink with their 95 % band, the linear-Gaussian line
    grey. What is far from all cells is cut off.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 8.4), dpi=160)
    weights, *panels = figure.subplots(3, 1, sharex=True)
    names = list(curves.weights)
    colours = dict(zip(names, series(len(names)), strict=True))
    for name, (at, weight) in curves.weights.items():
        weights.plot(at, weight, color=colours[name], lw=1.2, label=short(name, 44))
    weights.set_ylim(bottom=0)
    weights.set_ylabel("weight in the training,\nnormalised")
    _names(weights, min(2, len(names)))
    for axis, split in zip(panels, TITLES, strict=True):
        for name, drawn in curves.losses[split].items():
            for one in drawn:
                axis.plot(one.log_snr, one.eps_loss, color=colours[name], lw=1.1, alpha=0.85)
        for dashes, (words, best) in zip(DASHES, curves.optimal[split].items(), strict=False):
            mean, half = best.eps_loss, 1.96 * best.eps_standard_error
            label = OPTIMAL[split] + (f", {words}" if words else "")
            axis.plot(best.log_snr, mean, color=INK, lw=1.2, ls=dashes, label=label)
            axis.fill_between(best.log_snr, np.maximum(mean - half, 1e-300), mean + half, color=INK, alpha=0.15, lw=0)
        if curves.linear is not None:
            axis.plot(*curves.linear, color=MUTED, lw=1.2, ls="--", label="linear-Gaussian denoiser")
        axis.set_yscale("log")
        axis.set_ylim(*_range(curves))
        axis.set_ylabel(f"{TITLES[split]},\neps, a dimension")
        _names(axis, 2)
    panels[-1].set_xlabel("log SNR: noise on the left, the image on the right")
    for axis in (weights, *panels):
        finish(figure, axis, "y")
    figure.align_ylabels()
    figure.tight_layout(pad=0.8)
    return figure


def _names(axis: Any, columns: int) -> None:
    axis.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, fontsize=7.5, frameon=False, labelcolor=INK,
        handlelength=1.6, borderaxespad=0.2,
    )  # fmt: skip


def _range(curves: LossCurves) -> tuple[float, float]:
    """The losses of the cells with some room: a copier's loss runs to nothing on one side, to any size on another."""
    every = [one.eps_loss for drawn in curves.losses.values() for by_cell in drawn.values() for one in by_cell]
    shown = np.concatenate(every)
    shown = shown[np.isfinite(shown) & (shown > 0)]
    low, high = (float(shown.min()), float(shown.max())) if len(shown) else (0.1, 1.0)
    return low / 3, high * 2
