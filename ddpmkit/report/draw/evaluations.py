"""A metric against network evaluations or steps: a line a cell, a band over train seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ddpmkit.report.draw.labels import plain, short
from ddpmkit.report.draw.palette import DASHES, INK, MUTED, series
from ddpmkit.report.draw.panel import finish, legend, panel
from ddpmkit.report.draw.scales import logarithmic, spans
from ddpmkit.report.judge.by_evaluations import Lines
from ddpmkit.report.judge.near_noise import NOISE
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.bounds import bounds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Style = tuple[str, Any]  # a colour and matplotlib's dashes
WIDE = 5.6  # inches
FEW = 4  # lines, beyond which their bands are fainter


def evaluations_figure(lines: Lines, summary: Summary) -> Figure:
    """Draw one metric; where two things vary beside the steps, the first has the colours and the second the dashes."""
    from matplotlib.ticker import NullLocator

    figure, axis = panel(3.2, WIDE)
    metric = lines.metric
    means = [i.mean for line in lines.points.values() for _, i in line]
    least, largest = bounds(summary.originals.get(metric, metric))
    references = _references(summary, metric, means)
    every_height = [*means, *references.values()]
    steep = spans(every_height)
    styles, names = _styles(lines)
    for at, line in lines.points.items():
        colour, dashes = styles[at]
        x, mean = [v for v, _ in line], [i.mean for _, i in line]
        axis.plot(x, mean, "o", ls=dashes, color=colour, lw=1.3, ms=3.5)
        # Student's t knows no bound, and a metric and a logarithm do.
        floor = max(least, min(means) / 3) if steep else least
        low = [max(i.mean if i.low is None else i.low, floor) for _, i in line]
        high = [min(i.mean if i.high is None else i.high, largest) for _, i in line]
        axis.fill_between(x, low, high, color=colour, alpha=0.14 if len(lines.points) <= FEW else 0.07, lw=0)
    axis.set_xscale("log")
    every = sorted({round(v, 6) for line in lines.points.values() for v, _ in line})
    axis.set_xticks(every, [f"{v:g}" for v in every])
    axis.xaxis.set_minor_locator(NullLocator())
    if steep:
        logarithmic(axis, "y", every_height)
    for name, value in references.items():
        axis.axhline(value, color=MUTED, lw=1, ls=":")
        axis.annotate(
            plain(name), (1, value), (-2, 2), xycoords=axis.get_yaxis_transform(), textcoords="offset points",
            fontsize=7, color=MUTED, ha="right", va="bottom",
        )  # fmt: skip
    for name, (colour, dashes) in names.items():
        axis.plot([], [], color=colour, ls=dashes, lw=1.5, label=short(name, 34))
    axis.set_xlabel(lines.along)
    axis.set_ylabel(plain(metric) + summary.unit(metric))
    legend(axis)
    return finish(figure, axis, "y")


def _styles(lines: Lines) -> tuple[dict[tuple[str, ...], Style], dict[str, Style]]:
    """Colour and dashes of each line, and what the legend says of them."""
    places = list(lines.points)
    if len(lines.axes) == 2:
        first, second = (list(dict.fromkeys(at[k] for at in places)) for k in (0, 1))
        if len(second) <= len(DASHES) and not {*first} & {*second}:
            colours = dict(zip(first, series(len(first)), strict=True))
            dashes = dict(zip(second, DASHES, strict=False))
            named = {**{n: (c, "-") for n, c in colours.items()}, **{n: (INK, d) for n, d in dashes.items()}}
            return {at: (colours[at[0]], dashes[at[1]]) for at in places}, named
    styles = {at: (colour, "-") for at, colour in zip(places, series(len(places)), strict=True)}
    return styles, {", ".join(at): style for at, style in styles.items() if at}


def _references(summary: Summary, metric: str, means: Sequence[float]) -> dict[str, float]:
    """What real images score, and pure noise where the lines come near it."""
    found = {name: values[metric] for name, values in summary.references.items() if metric in values}
    near = {"real, ": (min(means) / 30, max(means) * 30), NOISE: (min(means) / 3, max(means) * 3)}
    return {
        name: value
        for name, value in found.items()
        for word, (low, high) in near.items()
        if name.startswith(word) and low < value < high
    }
