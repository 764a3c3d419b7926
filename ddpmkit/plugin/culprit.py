"""Whose code raised: the plugin that a traceback runs through, and where in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpmkit.plugin.loader import Entry
    from ddpmkit.plugin.registry import Registry


@dataclass(frozen=True)
class Culprit:
    """A place in a plugin's code.

    Attributes:
        plugin: name of its distribution, or of the file that ``-p`` named.
        version: the plugin's.
        component: kind and name, ``executor 'ours'``; empty where the code is no component's own method.
        file: path of the file.
        line: the line that raised, or called what raised.
        raised: whether that very line raised, and nothing that it called.
    """

    plugin: str
    version: str
    component: str
    file: str
    line: int
    raised: bool

    @property
    def place(self) -> str:
        """File and line."""
        return f"{Path(self.file).name} line {self.line}"

    @property
    def brief(self) -> str:
        """Plugin, file and line."""
        return f"plugin {self.plugin} {self.version}".rstrip() + f", {self.place}"

    def __str__(self) -> str:
        """Say it in half a line."""
        of = f"{self.component} of " if self.component else ""
        return of + self.brief


def culprit(err: BaseException, registry: Registry) -> Culprit | None:
    """Return the innermost place in a plugin's code that an exception passed through; None when there is none.

    What a plugin calls, a library or ddpmkit itself, raises on its behalf.
    """
    owners: dict[str, Entry] = {}
    for entry in registry.foreign():
        owners.setdefault(_top(entry.cls.__module__), entry)
    innermost, trace = None, err.__traceback__
    while trace is not None:
        owner = owners.get(_top(str(trace.tb_frame.f_globals.get("__name__"))))
        if owner is not None:
            component = _component(trace.tb_frame, registry) or (innermost.component if innermost else "")
            file = trace.tb_frame.f_code.co_filename
            last = trace.tb_next is None
            innermost = Culprit(owner.plugin, owner.plugin_version, component, file, trace.tb_lineno, last)
        trace = trace.tb_next
    return innermost


def _top(module: str) -> str:
    return module.partition(".")[0]


def _component(frame: FrameType, registry: Registry) -> str:
    """Kind and name of the component whose method a frame runs."""
    this = type(frame.f_locals.get("self"))
    entry = next((e for e in registry.foreign() if e.cls is this), None)
    return f"{entry.kind} '{entry.name}'" if entry else ""
