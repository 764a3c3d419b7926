"""``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddpmkit.cli.options import Out
from ddpmkit.errors import DdpmkitError

FORMATS = ("table", "md", "csv", "json")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(report)


def report(
    study: Annotated[str | None, typer.Argument(help="Name or folder of a study; the newest by default")] = None,
    out: Out = Path("results"),
    format: Annotated[str, typer.Option("--format", "-f", help=f"One of {', '.join(FORMATS)}")] = "table",
    baseline: Annotated[str | None, typer.Option(help="Cell to compare with; default: the first")] = None,
) -> None:
    """Print a study's table again from its records: means, intervals, paired differences, verdicts."""
    from ddpmkit.report import render
    from ddpmkit.report.frames import read_study
    from ddpmkit.report.tables import summarise
    from ddpmkit.report.write import to_csv
    from ddpmkit.study.store import find_study

    if format not in FORMATS:
        raise DdpmkitError(f"unknown format '{format}'", f"formats: {', '.join(FORMATS)}")
    records = read_study(find_study(study, out))
    labels = [c["label"] for c in records.plan["cells"]]
    if baseline is not None and baseline not in labels:
        raise DdpmkitError(f"the study has no cell '{baseline}'", f"cells: {', '.join(labels)}")
    if format == "csv":
        print(to_csv(records), end="")
        return
    summary = summarise(records, baseline)
    if format == "table":
        render.to_terminal(summary)
    else:
        print(render.to_markdown(summary) if format == "md" else render.to_json(summary), end="")
