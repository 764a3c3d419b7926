"""A component that no plugin brings any more, and which plugin did: the plans of studies know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError, UnknownComponentError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import Study, make_study
from ddpmkit.study.store import Store


def known_study(options: Mapping[str, Any], registry: Registry, store: Store) -> Study:
    """Make a study of options; of a component that is not here, say which plugin brought it to an earlier study.

    Raises:
        DdpmkitError: as of ``make_study``.
    """
    try:
        return make_study(options, registry)
    except UnknownComponentError as err:
        record = next(_records(store, err.kind, err.name), None)
        if record is None or (place := _place(record)) is None:
            raise
        raise DdpmkitError(
            f"{err.kind} '{err.name}' is of {record['plugin']} {record['plugin_version']}, which is not here", place
        ) from err


def _place(record: Mapping[str, Any]) -> str | None:
    """What to do to have a component again."""
    plugin = record["plugin"]
    if isinstance(record.get("version"), str):  # the hash of what -p named
        return f"pass it again: -p {plugin}, or where it is now"
    return f"install {plugin} {record['plugin_version']} again, or leave no:{plugin} and --no-plugins out"


def _records(store: Store, kind: str, name: str) -> Iterator[dict[str, Any]]:
    """Every record of that component in a plan, of the newest study first."""
    plans = sorted((store.out / "studies").glob("*/plan.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in plans:
        plan = files.read_sealed(path) or {}
        for stage in plan.get("stages", ()):
            for record in _within(stage.get("how", {})):
                if record["kind"] == kind and name in (record["name"], f"{record['plugin']}/{record['name']}"):
                    yield record


def _within(value: Any) -> Iterator[dict[str, Any]]:
    """The records of components in a recipe, parts of others included."""
    if isinstance(value, dict):
        if {"kind", "name", "plugin", "plugin_version"} <= set(value):
            yield value
        for inner in value.values():
            yield from _within(inner)
