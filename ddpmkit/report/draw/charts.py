"""Small charts, one idea each: effects, seeds in pairs, evaluations, two axes, training, bits by step, schedules.

Each is a narrow figure of its own, so that a page can set them side by side or below one another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ddpmkit.report.draw.chart import Chart
from ddpmkit.report.draw.classes import classes_figure, told
from ddpmkit.report.draw.evaluations import evaluations_figure
from ddpmkit.report.draw.forest import forest
from ddpmkit.report.draw.grid import shaded
from ddpmkit.report.draw.labels import short
from ddpmkit.report.draw.learning import learning_figure
from ddpmkit.report.draw.lines import lines
from ddpmkit.report.draw.palette import SERIES
from ddpmkit.report.draw.slopes import slopes
from ddpmkit.report.draw.split import split_figure
from ddpmkit.report.judge.by_evaluations import lines_by_evaluations
from ddpmkit.report.judge.learning import learned
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.axes import setting_text, varying_in_order
from ddpmkit.report.read.classes import class_grids
from ddpmkit.report.read.curves import curves_of
from ddpmkit.report.read.frames import Records
from ddpmkit.statistics import Contrast

MANY = 24  # cells that still have room in a chart with a place for each
GRIDS = 6  # grids of one metric; more make no picture that anyone reads


def charts(records: Records, summary: Summary) -> Iterator[Chart]:
    """Draw all that the records have the numbers for."""
    for number, metric in enumerate(summary.metrics):
        yield from _effects(summary, metric, _stem(metric, number))
        values = {c: v for c, v in summary.values.get(metric, {}).items() if v}
        if 1 < len(values) <= MANY and max(map(len, values.values())) > 1:
            alt = f"{metric} of each cell, one line a train seed."
            yield Chart(
                f"seeds-{_stem(metric, number)}",
                "seeds",
                summary.head(metric),
                alt,
                slopes(values, metric + summary.unit(metric)),
            )
    for lines_of in lines_by_evaluations(records, summary):
        metric, number = lines_of.metric, summary.metrics.index(lines_of.metric)
        alt = f"{metric} by {lines_of.along}, a line a cell, a band over train seeds."
        figure = evaluations_figure(lines_of, summary)
        yield Chart(f"evaluations-{_stem(metric, number)}", "evaluations", summary.head(metric), alt, figure)
    axes = varying_in_order(records)
    if "cell" not in axes and len(axes) >= 2:
        for number, metric in enumerate(summary.metrics):
            grids = _grids(records, summary, metric, axes)
            every = [v for _, grid in grids for row in grid.values() for v in row.values()]
            for part, (rest, grid) in enumerate(grids[:GRIDS]):
                stem = f"grid-{_stem(metric, number)}" + (f"-{part + 1}" if rest else "")
                alt = f"Mean {metric} by {axes[0]} and {axes[1]}{rest}."
                figure = shaded(grid, axes[0], axes[1], f"mean {metric}{summary.unit(metric)}{rest}", every)
                yield Chart(stem, "grid", summary.head(metric) + rest, alt, figure)
    yield from _classes(records)
    if curves := learned(records, summary):
        alt = "What trainings of several lengths have learned, by steps and by seconds; a thin line a train seed."
        figure = learning_figure(curves, {metric: summary.head(metric) for metric in curves})
        yield Chart("learning", "training", "Learned by steps and by seconds", alt, figure)
    yield from _along_the_way(records)
    for number, (metric, found) in enumerate((m, s) for m, s in summary.splits.items() if 0 < len(s) <= len(SERIES)):
        alt = f"Difference in {metric} from {summary.baseline} by log SNR, in bins and summed; the table has the same."
        stem = "split" + (f"-{number + 1}" if number else "")
        title = f"Difference in {metric} from {summary.baseline} by log SNR"
        yield Chart(stem, "bits", title, alt, split_figure(found, summary.baseline))


def _effects(summary: Summary, metric: str, stem: str) -> Iterator[Chart]:
    """The differences from the baseline, and the effects of whole axes."""
    title, way, margin = summary.head(metric), summary.way(metric), summary.margins.get(metric)
    name = short(metric, 20) + summary.unit(metric)
    gaps = _numbered(summary.differences[metric])
    if gaps:
        alt = f"Differences from {summary.baseline} in {metric}, with intervals; the same numbers are in the table."
        label = f"{name}: difference from\n{short(summary.baseline, 60)}"
        yield Chart(f"effects-{stem}", "effects", title, alt, forest(gaps, label, way, margin))
    whole = _numbered({f"{e.axis}: {e.level} - {e.reference}": e.contrast for e in summary.effects.get(metric, ())})
    if whole:
        alt = f"Effects of whole axes on {metric}, with intervals; the same numbers are in the table."
        figure = forest(whole, f"{name}: difference over matched cells", way, margin)
        yield Chart(f"axes-{stem}", "effects", f"{title}, whole axes", alt, figure)


def _numbered(contrasts: Mapping[str, Contrast]) -> dict[str, Contrast]:
    """The contrasts that have a number."""
    return {name: c for name, c in contrasts.items() if c.n and c.difference == c.difference}


def _stem(metric: str, number: int) -> str:
    """A file name for a metric; a number keeps those apart that would slug alike."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", metric).strip("-")[:40]
    return slug if slug and re.fullmatch(r"[A-Za-z0-9-]+", metric) else f"{slug or 'metric'}-{number + 1}"


def _grids(
    records: Records, summary: Summary, metric: str, axes: Sequence[str]
) -> list[tuple[str, dict[str, dict[str, float]]]]:
    """The means by the first two axes, a grid for each point of the others."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for cell in records.plan["cells"]:
        interval = summary.intervals[metric].get(cell["label"])
        if interval is not None:
            at = {a: setting_text(cell["settings"].get(a)) for a in axes}
            rest = "".join(f", {a} {at[a]}" for a in axes[2:])
            out.setdefault(rest, {}).setdefault(at[axes[0]], {})[at[axes[1]]] = interval.mean
    return list(out.items())


def _classes(records: Records) -> Iterator[Chart]:
    """A row a class and a column a strength, for each group of cells that differ in their guidance alone."""
    if not any(c.get("settings", {}).get("conditional") for c in records.plan["cells"]):
        return
    grids = class_grids(records)
    for number, grid in enumerate(grids[:GRIDS]):
        stem = "classes" + (f"-{number + 1}" if number else "")
        alt = f"Samples, a row a class, a column a strength of guidance: {'; '.join(grid.heads)}; {told(grid)}."
        title = grid.said or "A row a class, a column a guidance"
        if number == GRIDS - 1 and len(grids) > GRIDS:
            hint = " ".join(f"--where {condition}" for condition in grids[GRIDS].where)
            title += f" ({GRIDS} of {len(grids)} such pictures are here; ddpmkit plot classes {hint} draws the next)"
        yield Chart(stem, "classes", title, alt, classes_figure(grid))


def _along_the_way(records: Records) -> Iterator[Chart]:
    """What the stages recorded along the way, where they did."""
    recorded = curves_of(records)
    kinds = list(dict.fromkeys(recorded.kinds[name] for name in recorded.loss))
    for number, kind in enumerate(kinds):
        losses = {name: drawn for name, drawn in recorded.loss.items() if recorded.kinds[name] == kind}
        alt = "Training loss by step, a colour a training, a thin line a seed."
        of = f", {kind}" if kind and len(kinds) > 1 else ""
        stem = "training" + (f"-{number + 1}" if number else "")
        yield Chart(stem, "training", f"Loss by step{of}", alt, lines(losses, "step", f"loss{of}", "log"))
    if recorded.bits:
        alt = "Bits per dimension of each step's term of the bound."
        figure = lines(recorded.bits, "t", "bits/dim", "log", "log")
        yield Chart("bits-by-step", "bits", "Bits/dim by step", alt, figure)
    for stem, curves, title, label in (
        ("alpha-bars", recorded.alpha_bars, "Signal left, alpha-bar", "alpha-bar"),
        ("log-snr", recorded.log_snr, "Log signal to noise", "log SNR"),
    ):
        if curves:
            figure = lines(curves, "t", label)
            yield Chart(f"schedule-{stem}", "schedules", title, f"{title}, by t.", figure)
