"""The options that every command shares, and the registry they lead to."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from ddpmkit.cli.streams import plugins_may_print
from ddpmkit.files import home
from ddpmkit.plugin.spec import encode
from ddpmkit.study.settings import COMPONENTS, FIELDS

if TYPE_CHECKING:
    from ddpmkit.plugin.registry import Registry


@dataclass
class Global:
    """What was said before the command."""

    argv: tuple[str, ...] = ()  # the whole command line, for hints that are commands
    plugins: list[str] = field(default_factory=list)
    installed: bool = True
    strict: bool = False
    verbose: bool = False
    made: Registry | None = None  # the components, once they were asked for

    def registry(self, more: list[str] | None = None, *, quiet: bool = False) -> Registry:
        """Return the components, those of ``-p`` before and after the command included."""
        from ddpmkit.plugin.registry import Registry

        plugins_may_print()
        self.made = Registry([*self.plugins, *(more or [])], installed=self.installed, strict=self.strict, quiet=quiet)
        return self.made

    def again(self, name: str) -> str:
        """Return the command that was typed, under another ``--name``."""
        kept: list[str] = []
        for before, word in zip(("", *self.argv), self.argv, strict=False):
            if before != "--name" and word != "--name" and not word.startswith("--name="):
                kept.append(word)
        end = kept.index("--") if "--" in kept else len(kept)
        return shlex.join(["ddpmkit", *kept[:end], "--name", name, *kept[end:]])


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


PLUGIN_HELP = "Plugin to add: a module or a .py file; no:NAME removes an installed one. Repeatable."
Plugins = Annotated[list[str] | None, typer.Option("-p", "--plugin", help=PLUGIN_HELP, show_default=False)]
PATH: dict[str, Any] = {"parser": home, "metavar": "PATH"}  # of every option and argument that is a path
Out = Annotated[Path, typer.Option("--out", help="Results folder.", **PATH)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
