"""The report as one HTML file: no network, opens from disk, light and dark, a section a cell."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from ddpmkit.report.draw.chart import Chart
from ddpmkit.report.draw.charts import charts
from ddpmkit.report.draw.samples import STRIP, first_samples
from ddpmkit.report.forms import MAIN
from ddpmkit.report.isolated import isolated
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.axes import out_of, setting_text, varying
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.samples import CellSamples, samples_of
from ddpmkit.report.show.card import card, command, components, stage_ids
from ddpmkit.report.show.check import digest
from ddpmkit.report.show.table import Table
from ddpmkit.report.show.tables import remarks
from ddpmkit.report.show.words import findings, lead
from ddpmkit.study.store import Store
from ddpmkit.text import inert

if TYPE_CHECKING:
    from jinja2 import Template

VERDICTS = (
    "better",
    "worse",
    "inconclusive",
    "single seed",
    "no common seed",
    "not comparable",
    "one result",
    "baseline",
)
PICTURES = ("forward", "reverse")
SECTIONS = (
    (
        "effects",
        "Effects",
        "Difference from the baseline, paired by seed; filled where the verdict is better or worse.",
    ),
    ("seeds", "Seed by seed", "One line a train seed. Lines that run parallel are why differences are paired."),
    (
        "evaluations",
        "Quality by network evaluations",
        "Means over train seeds, and their 95 % Student-t intervals as bands; dotted: real images, and noise.",
    ),
    ("grid", "Two axes", "Means over train seeds; the darker, the larger, on one scale for all grids of a metric."),
    ("classes", "Classes", "The first samples of each class, none chosen; one place is one noise at every guidance."),
    ("training", "Training", "A thin line a seed; a training that cells share is drawn once."),
    (
        "bits",
        "Bits/dim by step",
        "Where in the chain the bound is spent, and by log SNR where a cell spends more or less than the baseline.",
    ),
    ("schedules", "Schedules", "As the run recorded them."),
)


def to_html(
    records: Records,
    summary: Summary,
    tables: Sequence[Table],
    *,
    drawn: Sequence[Chart] | None = None,
    samples: Sequence[CellSamples] | None = None,
) -> str:
    """Return the page.

    Args:
        records: A study's records.
        summary: What they come to.
        tables: The tables to show.
        drawn: The charts, where they have been drawn before.
        samples: The samples of the cells, where they have been read before.
    """
    all_charts = list(charts(records, summary)) if drawn is None else drawn
    sections = [
        {"id": id, "title": title, "said": caption, "charts": [c for c in all_charts if c.section == id]}
        for id, title, caption in SECTIONS
    ]
    folder = Path(__file__).parent / "templates"
    return _template().render(
        style=(folder / "report.css").read_text(encoding="utf-8"),
        script=(folder / "report.js").read_text(encoding="utf-8"),
        digest=digest(summary),
        summary=summary,
        lead=lead(summary),
        findings=findings(summary),
        notes=remarks(replace(summary, advice=()), tables),
        tables=[_table(t, summary, n) for n, t in enumerate(tables)],
        sections=[s for s in sections if s["charts"]],
        samples=_samples(samples_of(records) if samples is None else samples),
        pictures=_pictures(records.folder),
        cells=_cells(records, summary),
        card=card(records),
    )


@cache
def _template() -> Template:
    """The page's template, compiled once."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    jinja = Environment(
        loader=PackageLoader("ddpmkit.report.show", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.finalize = lambda value: inert(value) if type(value) is str else value
    jinja.filters |= {"verdict_kind": kind, "breaks": breaks}
    return jinja.get_template("report.html.j2")


def _table(table: Table, summary: Summary, number: int) -> dict[str, Any]:
    """A table's cells as parts: the number, its interval, the verdict, and what a column is sorted by."""
    metrics = {summary.head(m): m for m in summary.metrics} if table.name == MAIN else {}
    split = len(table.rows) - table.references
    rows: list[dict[str, Any]] = []
    for index, row in enumerate(table.rows):
        cells: list[dict[str, str]] = []
        for column, text in enumerate(row):
            value, bracket, rest = text.partition(" [") if column else (text, "", "")  # a label is taken as it is
            interval = f"[{rest}" if bracket else ""
            verdict = ""
            if interval:
                interval, _, verdict = interval.partition("] ")
                interval = interval if interval.endswith("]") else interval + "]"
            elif table.columns[column] == "verdict" or (column and text in VERDICTS):
                value, verdict = "", text
            if index < split and (metric := metrics.get(table.columns[column])):
                verdict = _verdict(summary, metric, row[0]) or verdict
            cells.append(
                {"value": value, "interval": interval, "verdict": verdict, "kind": kind(verdict), "key": _key(text)}
            )
        rows.append({"cells": cells, "reference": index >= split})
    numeric = [i for i in range(len(table.columns)) if any(r["cells"][i]["key"] != "" for r in rows)]
    return {"id": f"table-{number}", "title": table.title, "heads": table.columns, "rows": rows, "numeric": numeric}


def kind(verdict: str) -> str:
    """The class that a verdict is coloured by."""
    if verdict.startswith("no gap"):
        return "same"
    verdict = {"agrees": "better", "disagrees": "worse"}.get(verdict, verdict)
    return verdict if verdict in ("better", "worse", "baseline") else "open"


def breaks(spec: str) -> Markup:
    """A spec that may be broken behind its colons and signs, and copies as it is."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[:=/])", inert(spec)))


def _verdict(summary: Summary, metric: str, cell: str) -> str:
    if cell == summary.baseline:
        return "baseline" if summary.differences[metric] else ""
    contrast = summary.differences[metric].get(cell)
    return contrast.verdict if contrast else ""


def _key(text: str) -> str:
    """The number that a cell begins with, as sorting needs it; empty when it begins with none."""
    number = re.match(r"[<]?([+-]?\d*\.?\d+)(?=$|[ (])", text)
    return number[1] if number else ""


def _samples(cells: Sequence[CellSamples]) -> list[dict[str, str]]:
    """The first samples of every cell, drawn from the same noise wherever the same seeds are done."""
    out = []
    for cell in cells:
        with isolated(f"the samples of {cell.label}"):
            out.append(
                {
                    "label": cell.label,
                    "slug": cell.slug,
                    "source": png(first_samples(cell)),
                    "narrow": png(first_samples(cell, STRIP // 2)),  # larger pictures on a phone
                    "seeds": cell.seeds,
                    "same": "yes" if cell.usual else "",
                }
            )
    return out


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    """Pixels as the address of a PNG inside the page."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _pictures(folder: Path) -> list[dict[str, str]]:
    """The forward and reverse strips, where someone has drawn them into the study's folder."""
    out = []
    for name in PICTURES:
        for path in (folder / "figures" / f"{name}.png", folder / f"{name}.png"):
            if path.is_file() and path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n":
                source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
                out.append({"name": name, "source": source})
                break
    return out


def _cells(records: Records, summary: Summary) -> list[dict[str, Any]]:
    """A section a cell: its settings, its stages and how they ended, what made them, and the command for it alone."""
    stages = {s["id"]: s for s in records.plan["stages"]}
    differ = set(varying(records))
    by_cell: dict[str, list[Mapping[str, Any]]] = {}
    for r in records.plan["results"]:
        by_cell.setdefault(r["cell"], []).append(r)
    out = []
    for cell in records.plan["cells"]:
        rows: list[dict[str, str]] = []
        parts: dict[tuple[str, str], dict[str, Any]] = {}
        for r in by_cell.get(cell["label"], []):
            store = Store(out_of(records, r))
            for id, what in stage_ids(r, stages).items():
                if id in {row["full"] for row in rows}:
                    continue
                done, status = store.done(what, id), store.status(what, id)
                seconds = status.get("seconds")
                stage = stages.get(id, {})
                rows.append(
                    {
                        "kind": what,
                        "full": id,
                        "label": str(stage.get("label", "")),
                        "state": "done" if done else str(status.get("state", "pending")),
                        "error": str(status.get("error", "")) if not done else "",
                        "seconds": f"{seconds:.1f}" if isinstance(seconds, (int, float)) else "",
                    }
                )
                for part in components(stage):
                    parts[str(part.get("kind")), str(part.get("name"))] = part
        settings = cell.get("settings", {})
        point = {k: settings[k] for k in records.plan["grid"].get("axes", {}) if k in settings and k != "study"}
        out.append(
            {
                "label": cell["label"],
                "slug": f"cell-{cell['slug']}",
                "settings": [
                    (k, setting_text(v), k in differ) for k, v in sorted(settings.items(), key=_varying_first(differ))
                ],
                "stages": rows,
                "components": list(parts.values()),
                "counts": ", ".join(f"{n} {s}" for s, n in summary.counts.get(cell["label"], {}).items()),
                "broken": set(summary.counts.get(cell["label"], {})) - {"done"} != set(),
                "command": command(records.plan["grid"], records.name, point) if stages else "",
            }
        )
    return out


def _varying_first(differ: set[str]) -> Any:  # a sort key
    return lambda item: (item[0] not in differ, item[0])
