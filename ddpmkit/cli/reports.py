"""``report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ddpmkit.cli.options import PATH, Baseline, Out, Where
from ddpmkit.cli.streams import data
from ddpmkit.errors import DdpmkitError, Exit, did_you_mean
from ddpmkit.files import home
from ddpmkit.report.forms import ALIASES, FORMATS, SUFFIXES, TABLES
from ddpmkit.text.plain import utf8


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(report)


def report(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names or folders of studies, or a tidy CSV; the newest by default; several are compared",
            metavar="STUDY",
        ),
    ] = None,
    out: Out = Path("results"),
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help=f"One of {', '.join(FORMATS)}; csv is one row a number; default: terminal, or as --to ends",
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="File to write instead of stdout", **PATH)] = None,
    where: Where = None,
    metrics: Annotated[
        str | None, typer.Option(help="Comma list of metrics to show, FD-digits or fd for all of its kind; default all")
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", help=f"Comma list of tables to show, of {', '.join(TABLES)}; default all")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Metric to order the cells by, or cell; -NAME turns it round")
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Pivot: the axis down the side")] = None,
    cols: Annotated[str | None, typer.Option(help="Pivot: the axis along the top")] = None,
    baseline: Baseline = None,
    margin: Annotated[
        str | None, typer.Option(help="Largest gap that does not matter, set before looking: NLL=0.05,FD-digits=1")
    ] = None,
    better: Annotated[
        str | None, typer.Option(help="Which way a metric is better, where its name doesn't say: reward=higher")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder to write the figures of what is shown into: PNG, SVG and PDF", **PATH)
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; fail when the files in --to, or in the study, differ from the store"
        ),
    ] = False,
) -> None:
    """Show a study again from its records, in any form.

    Means, intervals, paired differences, verdicts and pictures; nothing is computed again, and no plugin is needed.
    """
    from ddpmkit import files
    from ddpmkit.report.show.terminal import to_terminal
    from ddpmkit.report.show.views import View
    from ddpmkit.report.write import export_figures, make, render
    from ddpmkit.study.store import find_study

    form = _form(format, to) if not check else "terminal"
    if form not in FORMATS:
        raise DdpmkitError(f"unknown format '{form}'{did_you_mean(form, FORMATS)}", f"formats: {', '.join(FORMATS)}")
    # A file is a tidy CSV of results made elsewhere; anything else is a study.
    folders = (
        [home(s) if home(s).is_file() else find_study(s, out) for s in studies] if studies else [find_study(None, out)]
    )
    if check:
        _check(folders, to)
        return
    view = View(tuple(where or ()), _listed(metrics), sort, rows, cols, _listed(table))
    records, summary, tables = make(folders, view, baseline=baseline, margin=margin, better=better)
    if figures is not None:
        paths = export_figures(figures, records, summary)
        print(f"wrote {len(paths)} files into {figures}", file=sys.stderr)
    if form == "terminal" and to is None:
        to_terminal(summary, shown=tables)
        return
    text = render(form, records, summary, tables, notes=table is None)
    if form == "html" and to is None and sys.stdout.isatty():
        # Nobody reads a page in a terminal.
        to = folders[0] / "report.html" if folders[0].is_dir() else folders[0].with_suffix(".html")
    if to is None:
        if form == "html" and not utf8(data()):
            # The page says that it is UTF-8; as ASCII with character references it is, whatever the stream does.
            text = text.encode("ascii", "xmlcharrefreplace").decode()
        print(text, end="", file=data())
        return
    files.write_text(to, text)
    print(f"wrote {to}", file=sys.stderr)


def _listed(text: str | None) -> tuple[str, ...]:
    """The items of a comma list."""
    return tuple(item.strip() for item in (text or "").split(",") if item.strip())


def _form(format: str | None, to: Path | None) -> str:
    """The form that was asked for, or that a file's name asks for.

    Raises:
        DdpmkitError: when the two are not the same.
    """
    meant = SUFFIXES.get(to.suffix.lower(), ()) if to is not None else ()
    if format is None:
        return meant[0] if meant else "terminal"
    form = ALIASES.get(format, format)
    if meant and form in FORMATS and form not in meant:
        raise DdpmkitError(f"'{to}' would hold the form {form}", f"--format {meant[0]}, or another name")
    return form


def _check(folders: list[Path], committed: Path | None) -> None:
    from ddpmkit.report.show.check import differences

    if len(folders) > 1:
        raise DdpmkitError("--check looks at one study", "ddpmkit report STUDY --check")
    for mismatch in differences(folders[0], committed or folders[0]):
        raise DdpmkitError(mismatch.message, mismatch.hint, code=Exit.FAILED)
    print(f"{committed or folders[0]}: as the store has it", file=sys.stderr)
