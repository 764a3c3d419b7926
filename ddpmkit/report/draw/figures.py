"""The figures of a study beside its charts: the samples and the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddpmkit.report.draw.metrics import metrics_figure
from ddpmkit.report.draw.samples import samples_figure, write_samples
from ddpmkit.report.draw.save import PAGE, save
from ddpmkit.report.isolated import isolated
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.samples import CellSamples


def write_figures(
    folder: Path, summary: Summary, samples: Sequence[CellSamples], forms: Sequence[str] = PAGE
) -> list[Path]:
    """Write the figures that are no chart of the page, and return their paths; a cell's own samples are a PNG."""
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
    return written
