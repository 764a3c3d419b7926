"""The application: global options, and one thin file a command group."""

from __future__ import annotations

from typing import Annotated

import typer

from ddpmkit import __version__
from ddpmkit.cli import bench, bound, components, evaluate, plots, reports, studies
from ddpmkit.cli.options import PLUGIN_HELP, Global

app = typer.Typer(
    name="ddpmkit",
    help="Which DDPM design choice is better, by how much, and can you believe it?",
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        print(f"ddpmkit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    plugin: Annotated[list[str] | None, typer.Option("-p", "--plugin", help=PLUGIN_HELP, show_default=False)] = None,
    no_plugins: Annotated[bool, typer.Option("--no-plugins", help="Load no installed plugin.")] = False,
    strict_plugins: Annotated[bool, typer.Option("--strict-plugins", help="Fail when a plugin is broken.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Which DDPM design choice is better, by how much, and can you believe it?"""
    global_options: Global = context.obj
    global_options.plugins, global_options.installed = plugin or [], not no_plugins
    global_options.strict, global_options.verbose = strict_plugins, verbose


studies.register(app)
evaluate.register(app)
bound.register(app)
reports.register(app)
components.register(app)
plots.register(app)
bench.register(app)
