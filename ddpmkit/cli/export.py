"""``export``: a trained cell in the format of another library, by whichever package writes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ddpmkit.cli.options import PATH, Global, Out, Plugins
from ddpmkit.cli.streams import on_stdout


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: ddpmkit export mine/cosine --to cosine-diffusers")(export)


def export(
    context: typer.Context,
    cell: Annotated[str, typer.Argument(metavar="STUDY/CELL", help="A study by name or folder, and one of its cells")],
    to: Annotated[Path, typer.Option("--to", help="The folder to write, which must not be there", **PATH)],
    format: Annotated[
        str, typer.Option("--format", help="The format; the package ddpmkit-diffusers brings this one")
    ] = "diffusers",
    train_seed: Annotated[
        int | None, typer.Option(help="Train seed of the network; default: the first one that is trained")
    ] = None,
    out: Out = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Write a trained cell in the format of another library.

    The default is a folder that DDPMPipeline of diffusers loads and samples from. It appears whole or not at all.
    """
    from ddpmkit.plugin.exporters import exporter

    given: Global = context.obj
    registry = given.registry(plugin)
    write = exporter(format, registry)  # before torch is loaded and the network is
    from ddpmkit.study.exporting import check_folder, write_folder
    from ddpmkit.study.loaded import load

    check_folder(to)
    loaded = load(cell, None, train_seed, out=out, registry=registry, device="cpu")
    for note in write_folder(write, loaded, to):
        print(f"note: {note}", file=sys.stderr)
    with on_stdout():
        print(to)
