"""``new-plugin``: a package to begin with."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ddpmkit.cli.streams import on_stdout


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("new-plugin")(new_plugin)


def new_plugin(
    name: Annotated[str, typer.Argument(help="The component's name, as it will stand in tables: soft-cosine")],
    kind: Annotated[
        str,
        typer.Option(
            help="schedule, sigma, weighting, backbone, prediction, sampler, dataset, features, metric or executor"
        ),
    ],
) -> None:
    """Write a plugin to begin with, a package that works.

    It gets a folder of its own, ddpmkit-NAME, here: one module, its test, the entry point by which ddpmkit finds it.
    """
    from ddpmkit.plugin.new import COMMANDS
    from ddpmkit.plugin.new import new_plugin as write

    written = write(name, kind, Path())
    with on_stdout():
        for path in written:
            print(path)
    folder, short = written[0].parent, name.removeprefix("ddpmkit-")
    install = shlex.quote(f"./{folder}[dev]")
    print(
        f"next: pip install -e {install} && pytest {folder} && {COMMANDS[kind].format(short)}",
        file=sys.stderr,
    )
