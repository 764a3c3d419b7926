"""Write what a study leaves behind: results.csv, the report in every form, the study card, figures; and check them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.places import refuse_outside
from ddpmkit.report.isolated import isolated
from ddpmkit.report.judge.overrides import measured
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.compare import compare
from ddpmkit.report.read.conditions import cell_named, select
from ddpmkit.report.read.frames import Records, read_study
from ddpmkit.report.read.margins import stated_margins
from ddpmkit.report.show.csv import to_tidy, to_wide
from ddpmkit.report.show.json import finite, to_json
from ddpmkit.report.show.latex import to_latex
from ddpmkit.report.show.markdown import to_markdown
from ddpmkit.report.show.table import Table
from ddpmkit.report.show.tables import all_tables
from ddpmkit.report.show.terminal import to_tsv
from ddpmkit.report.show.views import View, shown
from ddpmkit.study.sharing import remember
from ddpmkit.study.store import Store

if TYPE_CHECKING:
    from ddpmkit.report.draw.chart import Chart
    from ddpmkit.report.read.samples import CellSamples
    from ddpmkit.study.strips import Strips


def make(
    folders: Sequence[Path],
    view: View | None = None,
    *,
    baseline: str | None = None,
    margin: str | None = None,
    better: str | None = None,
) -> tuple[Records, Summary, list[Table]]:
    """Read one study or several, and return the records, the summary and the tables that a view shows of them.

    Args:
        folders: The studies' folders, or tidy CSV files made elsewhere; several are compared.
        view: Conditions, metrics, order, pivot.
        baseline: The cell that the others are compared with, shown whatever the conditions say; the first by default.
        margin: The gap that does not matter, ``NLL=0.05,FD-digits=1``.
        better: Which way metrics are better, ``PSNR=higher``, where neither the records nor the name says so.

    Raises:
        DdpmkitError: for whatever of it does not exist.
    """
    view = view or View()
    whole = compare([_read(f) for f in folders])
    # Before the conditions, which may leave it out: what they choose is compared with it all the same.
    baseline = None if baseline is None else cell_named([c["label"] for c in whole.plan["cells"]], baseline)
    records = select(whole, view.where, baseline)
    summary = summarise(records, baseline, margin=margin, directions=better)
    narrowed, printed = shown(records, summary, view, total=len(whole.plan["cells"]))
    return records, narrowed, printed


def _read(path: Path) -> Records:
    if path.is_dir():
        remember(Store(path.parent.parent))
        return read_study(path)
    from ddpmkit.report.read.foreign import read_foreign

    records = read_foreign(path)
    cells = [{**c, "slug": f"{i + 1}"} for i, c in enumerate(records.plan["cells"])]
    return replace(records, plan={**records.plan, "cells": cells})


def render(form: str, records: Records, summary: Summary, printed: Sequence[Table], *, notes: bool = True) -> str:
    """Return the report as text in one of the forms; ``terminal`` gives the tab-separated rows of a pipe.

    Without ``notes`` LaTeX has them as comments: for tables that go into a text of one's own.
    """
    if form == "csv":
        return to_tidy(records)
    if form == "wide":
        return to_wide(records, summary)
    if form == "html":
        from ddpmkit.report.show.html import to_html

        return to_html(records, summary, printed)
    if form == "latex":
        return to_latex(summary, printed, notes=notes)
    return {"terminal": to_tsv, "md": to_markdown, "json": to_json}[form](summary, printed)


def export_figures(folder: Path, records: Records, summary: Summary) -> list[Path]:
    """Write the figures of what a report shows into a folder, as PNG, SVG and PDF, and return their paths.

    Raises:
        DdpmkitError: when the folder is a file.
    """
    from ddpmkit.report.draw.figures import write_figures
    from ddpmkit.report.draw.save import FORMATS

    if folder.exists() and not folder.is_dir():
        raise DdpmkitError(f"'{folder}' is a file, and no folder for figures", "--figures figures")
    drawn, samples = _pictures(records, summary)
    return write_figures(folder, summary, samples, drawn, FORMATS)


def _pictures(records: Records, summary: Summary) -> tuple[list[Chart], list[CellSamples]]:
    """The charts and the samples; what can't be drawn or read is said and left out."""
    from ddpmkit.report.draw.charts import charts
    from ddpmkit.report.read.samples import samples_of

    drawn: list[Chart] = []
    with isolated("a chart"):
        for chart in charts(records, summary):
            drawn.append(chart)  # those before a broken one stay
    samples: list[CellSamples] = []
    with isolated("the samples"):
        samples = samples_of(records)
    return drawn, samples


def write_report(
    folder: Path, strips: Mapping[str, Strips] | None = None, *, margin: Mapping[str, float] | str | None = None
) -> Summary:
    """Write the study's files from its records, and return the summary.

    Args:
        folder: The study's folder.
        strips: Rows of pictures by the name of their figure; the page shows ``forward`` and ``reverse``.
        margin: The gap that does not matter, ``NLL=0.05,FD-digits=1``; by metric, those without a number are left out.

    Raises:
        DdpmkitError: for a text with a margin of an unknown metric.
    """
    records = read_study(folder)
    return _write(folder, records, summarise(records, margin=measured(margin, records.results["metric"])), strips or {})


def write_again(folder: Path) -> Summary:
    """Write the study's files from its records, with the margins that its report was made with; return the summary."""
    records = read_study(folder)
    margins = stated_margins(folder, set(records.results["metric"]))
    return _write(folder, records, summarise(records, margin=margins), {})


def _write(folder: Path, records: Records, summary: Summary, strips: Mapping[str, Strips]) -> Summary:
    from ddpmkit.report.draw.figures import write_figures
    from ddpmkit.report.draw.save import save
    from ddpmkit.report.draw.strips import strips_figure
    from ddpmkit.report.show.card import card, card_markdown
    from ddpmkit.report.show.html import to_html

    texts = {
        "results.csv": to_tidy(records),
        "report.md": to_markdown(summary),
        "report.tex": to_latex(summary),
        "report.json": to_json(summary),
        "card.md": card_markdown(records),
    }
    for name, text in texts.items():
        files.write_text(folder / name, text)
    files.write_json(folder / "card.json", finite(card(records)))
    refuse_outside(folder, folder / "figures")
    # From here on it is pictures: one that can't be drawn is said and left out, and costs nothing else.
    for name, walk in strips.items():
        with isolated(f"the strips {name}"):
            save(strips_figure(walk), folder / "figures" / name)
    drawn, samples = _pictures(records, summary)
    with isolated("report.html"):
        page = to_html(records, summary, all_tables(summary), drawn=drawn, samples=samples)
        files.write_text(folder / "report.html", page)
    write_figures(folder / "figures", summary, samples, drawn)
    return summary
