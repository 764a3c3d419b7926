"""Formats of other libraries that a trained cell can be written in; each is a package's, found by its entry point.

An exporter is no component: it has no spec and no place in a cell. It is a function (loaded, folder) -> lines for
people, in the entry-point group ``ddpmkit.exporters``, imported when its format is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ddpmkit.errors import DdpmkitError, did_you_mean

if TYPE_CHECKING:
    from ddpmkit.plugin.registry import Registry

GROUP = "ddpmkit.exporters"
KNOWN = {"diffusers": "ddpmkit-diffusers"}  # format -> the package in plugins/ that brings it
Exporter: TypeAlias = "Callable[[Any, Path], Iterable[str]]"


def exporter(name: str, registry: Registry) -> Exporter:
    """Return the function that writes a format.

    Raises:
        DdpmkitError: when no installed package brings the format, ``-p no:`` or ``--no-plugins`` leaves it out, or it
            can't be imported.
    """
    points = {p.name: p for p in entry_points(group=GROUP)}
    point = points.get(name)
    if point is None and name in KNOWN:
        raise DdpmkitError(
            f"exporting to {name} needs the package {KNOWN[name]}, which is not installed",
            f"in a clone of ddpmkit's repository: pip install . ./plugins/{KNOWN[name]}",
        )
    if point is None:
        known = sorted({*points, *KNOWN})
        raise DdpmkitError(f"unknown format '{name}'{did_you_mean(name, known)}", f"formats: {', '.join(known)}")
    if not registry.installed or f"no:{_distribution(point)}" in registry.options:
        raise DdpmkitError(
            f"exporting to {name} needs the plugin {_distribution(point)}, which this command line leaves out",
            "leave out --no-plugins, and -p no: of it",
        )
    try:
        found: Exporter = point.load()
    except (ImportError, AttributeError) as err:
        raise DdpmkitError(
            f"{_distribution(point)} is installed and can't be imported: {err}", "install it again"
        ) from err
    return found


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
