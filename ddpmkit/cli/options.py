"""The options that commands share, and flags for the settings of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from ddpmkit.cli.given import PLUGIN_HELP
from ddpmkit.cli.given import Global as Global
from ddpmkit.files import home
from ddpmkit.plugin.spec import encode
from ddpmkit.study.settings import COMPONENTS, FIELDS


def setting(name: str, *flags: str, panel: str) -> Any:
    """A flag for one setting of a study; its help, default and kind of values are taken from there."""
    shown, flags = FIELDS[name], flags or (f"--{name.replace('_', '-')}",)
    kind = "SPEC" if name in COMPONENTS else {int: "INT", float: "FLOAT"}.get(_scalar(shown.type), "NAME")
    choices = f": {', '.join(get_args(shown.type))}" if get_origin(shown.type) is Literal else ""
    text = f"{shown.help[:1].upper()}{shown.help[1:]}{choices}; default {encode(shown.default)}"
    return typer.Option(*flags, help=text, show_default=False, metavar=f"{kind},..", rich_help_panel=panel)


def _scalar(kind: Any) -> Any:
    """The type of a setting that may also be none."""
    return next((each for each in get_args(kind) if each in (int, float)), kind)


Plugins = Annotated[list[str] | None, typer.Option("-p", "--plugin", help=PLUGIN_HELP, show_default=False)]
PATH: dict[str, Any] = {"parser": home, "metavar": "PATH"}  # of every option and argument that is a path
Out = Annotated[Path, typer.Option("--out", help="Results folder.", **PATH)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        help="axis=value or axis!=value, values a,b for either, * for anything. Repeatable: all must hold.",
        metavar="CONDITION",
    ),
]
Baseline = Annotated[
    str | None, typer.Option(help="Cell to compare with, shown whatever --where says; default: the first shown")
]
