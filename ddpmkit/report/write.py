"""Write what a study leaves behind: results.csv, report.md, report.json, figures."""

from __future__ import annotations

from pathlib import Path

from ddpmkit import files
from ddpmkit.report.frames import TEXT, Records, read_study
from ddpmkit.report.render import to_json, to_markdown
from ddpmkit.report.tables import Summary, summarise
from ddpmkit.text import inert


def read_summary(folder: Path) -> tuple[Records, Summary]:
    """Read a study's records and summarise them."""
    records = read_study(folder)
    return records, summarise(records)


def to_csv(records: Records) -> str:
    """The tidy results as CSV; text that a spreadsheet would run as a formula is disarmed."""
    frame = records.results.copy()
    for column in frame.columns:
        if column in TEXT:
            frame[column] = [_disarm(v) if isinstance(v, str) else v for v in frame[column]]
    return str(frame.to_csv(index=False, lineterminator="\n"))


def write_report(folder: Path) -> Summary:
    """Write the study's files from its records, and return the summary."""
    from ddpmkit.report.figures import write_figures

    records, summary = read_summary(folder)
    files.write_text(folder / "results.csv", to_csv(records))
    files.write_text(folder / "report.md", to_markdown(summary))
    files.write_text(folder / "report.json", to_json(summary))
    write_figures(records, summary)
    return summary


def _disarm(text: str) -> str:
    text = inert(text)
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text
