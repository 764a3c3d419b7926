"""The settings of a plan's cells: which vary, their values as one types them; and where a result's stages lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpmkit.report.read.columns import AXES
from ddpmkit.report.read.frames import Records

STEPS = "sampling_steps"  # what a walk costs


def varying_axes(records: Records) -> list[str]:
    """Return the settings that differ among the cells."""
    cells = [c.get("settings", {}) for c in records.plan["cells"]]
    known = dict.fromkeys(axis for settings in cells for axis in settings)
    return [a for a in known if len({setting_text(s.get(a)) for s in cells}) > 1]


def varying_in_order(records: Records) -> list[str]:
    """Return the settings that differ: those that tables name in their order, then others, the number of steps last."""
    order = {axis: number for number, axis in enumerate(AXES)} | {STEPS: len(AXES) + 1}
    return sorted(varying_axes(records), key=lambda axis: order.get(axis, len(AXES)))


def varying(records: Records) -> dict[str, list[str]]:
    """Return the axes that vary among the cells, each with its values in order."""
    return {a: values_of(records, a) for a in varying_axes(records)}


def values_of(records: Records, axis: str) -> list[str]:
    """Return the values of a setting, in the order of the cells."""
    return list(dict.fromkeys(setting_text(settings_of(c).get(axis)) for c in records.plan["cells"]))


def settings_of(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's settings, its name as one of them."""
    return {**cell.get("settings", {}), "cell": cell["label"]}


def out_of(records: Records, result: Mapping[str, Any]) -> Path:
    """Return the results folder whose store holds a result's stages."""
    return Path(result.get("out", records.folder.parent.parent))


def setting_text(value: object) -> str:
    """Write a setting as one types it."""
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
