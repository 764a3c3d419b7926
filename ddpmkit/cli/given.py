"""What was said before the command, and the registry that it leads to; light, since every command line needs it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ddpmkit.cli.streams import plugins_may_print

if TYPE_CHECKING:
    from ddpmkit.plugin.registry import Registry

PLUGIN_HELP = "Plugin to add: a module or a .py file; no:NAME removes an installed one. Repeatable."


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
