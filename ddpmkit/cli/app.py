"""The application: global options, and one thin file a command group, loaded when one of its commands is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated

import typer

from ddpmkit import __version__
from ddpmkit.cli.given import PLUGIN_HELP, Global

# Command -> the file that has it, and what the list of commands says of it: its docstring's first line.
COMMANDS = {
    "ablate": ("ablate", "Train, sample, score and compare every cell of a grid. What is done is not done again."),
    "status": ("status", "How far a study is, who runs it, and what went wrong."),
    "evaluate": ("evaluate", "Score any images against any reference."),
    "likelihood": ("bound", "Bound the negative log-likelihood of one training."),
    "report": ("reports", "Show a study again from its records, in any form."),
    "ls": ("components", "List the components, with parameters and defaults."),
    "show": ("components", "Show a component (with formula), setting or recipe."),
    "plugins": ("components", "List the plugins: what each brings, and what is wrong."),
    "check": ("check", "Check components against what their kind must satisfy."),
    "plot": ("plots", "Draw schedules, noising, losses, learning, classes."),
    "sample": ("sample", "Draw images from a trained cell of a study."),
    "export": ("export", "Write a trained cell in the format of another library."),
    "import-checkpoint": ("import_checkpoint", "Take weights from a .pt file, as safetensors."),
    "studies": ("manage", "List studies; rename one, remove one, restore one."),
    "gc": ("manage", "Move what no study needs to the trash; empty it."),
    "why": ("ask", "What a stage is, who needs it, what its id is made of."),
    "diff": ("ask", "What made the ids of two stages differ."),
    "doctor": ("doctor", "Name damaged files, and what the next run does."),
    "verify": ("verify", "Compute stages drawn at random again, and compare."),
    "new-plugin": ("start", "Write a plugin to begin with, a package that works."),
    "completion": ("completion", "Print a script that completes commands in a shell."),
    "bench": ("bench", "Time a training to a fixed NLL and a fixed FD."),
}


def application(words: Sequence[str]) -> typer.Typer:
    """Build the application for a command line: of a command that is not among its words only the name is there."""
    app = typer.Typer(
        name="ddpmkit",
        help="Which DDPM design choice is better, by how much, and can you believe it?",
        add_completion=False,  # it would start Python at every key; see completion.py
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(options)
    wanted = dict.fromkeys(file for name, (file, _) in COMMANDS.items() if name in words)
    for name, (file, summary) in COMMANDS.items():
        if file not in wanted:
            app.command(name, help=summary)(_elsewhere)
    for file in wanted:
        importlib.import_module(f"ddpmkit.cli.{file}").register(app)
    return app


def _elsewhere() -> None:
    """Stand in for a command that nobody asked for."""


def _version(value: bool) -> None:
    if value:
        print(f"ddpmkit {__version__}")
        raise typer.Exit


def options(
    context: typer.Context,
    plugin: Annotated[
        list[str] | None, typer.Option("-p", "--plugin", help=PLUGIN_HELP, show_default=False, envvar="DDPMKIT_PLUGINS")
    ] = None,
    no_plugins: Annotated[
        bool, typer.Option("--no-plugins", help="Load no installed plugin.", envvar="DDPMKIT_NO_PLUGINS")
    ] = False,
    strict_plugins: Annotated[
        bool, typer.Option("--strict-plugins", help="Fail when a plugin is broken.", envvar="DDPMKIT_STRICT_PLUGINS")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Which DDPM design choice is better, by how much, and can you believe it?"""
    global_options: Global = context.obj
    global_options.plugins, global_options.installed = plugin or [], not no_plugins
    global_options.strict, global_options.verbose = strict_plugins, verbose
