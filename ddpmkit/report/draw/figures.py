"""Everything that stands in a folder of figures: samples, metrics, charts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddpmkit.report.draw.chart import Chart
from ddpmkit.report.draw.metrics import metrics_figure
from ddpmkit.report.draw.samples import samples_figure, write_samples
from ddpmkit.report.draw.save import PAGE, save
from ddpmkit.report.isolated import isolated
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.samples import CellSamples


def write_figures(
    folder: Path,
    summary: Summary,
    samples: Sequence[CellSamples],
    charts: Sequence[Chart] = (),
    forms: Sequence[str] = PAGE,
) -> list[Path]:
    """Write all figures, and return their paths; one that can't be drawn is said, and costs no other.

    Args:
        folder: Where they go.
        summary: What the metrics' figure shows.
        samples: The cells' samples; the picture of one cell is a PNG whatever the forms, since nothing in it is a line.
        charts: The charts.
        forms: Some of png, svg, pdf.
    """
    written: list[Path] = []
    for cell in samples:
        with isolated(f"the samples of {cell.label}"):
            path = folder / f"samples-{cell.slug}.png"
            write_samples(path, cell)
            written.append(path)
    if samples:
        with isolated("the cells side by side"):
            written += save(samples_figure(samples), folder / "samples", forms)
    if any(summary.intervals.values()):
        with isolated("the metrics"):
            written += save(metrics_figure(summary), folder / "metrics", forms)
    for chart in charts:
        with isolated(f"the chart {chart.stem}"):
            written += chart.write(folder, forms)
    return written
