"""What cells that differ in the length of their training alone have learned by then: curves of distances and NLL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.axes import setting_text, varying_axes
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.reference import BITS

LENGTH = "train_steps"


@dataclass(frozen=True)
class Learned:
    """A curve of one metric at one train seed, the shortest training first.

    Attributes:
        steps: of the trainings.
        seconds: that they took, with the steps that another training had made; None where no record says so.
        values: of the metric.
    """

    steps: tuple[int, ...]
    seconds: tuple[float | None, ...]
    values: tuple[float, ...]


def learned(records: Records, summary: Summary) -> dict[str, dict[str, list[Learned]]]:
    """Return metric -> what else the cells are -> its curves, one a train seed; of distances and bits/dim."""
    axes = varying_axes(records)
    if LENGTH not in axes:
        return {}
    axes = [axis for axis in axes if axis != LENGTH]
    cells: dict[str, dict[int, str]] = {}
    for cell in records.plan["cells"]:
        own = cell.get("settings", {})
        if isinstance(own.get(LENGTH), int):
            cells.setdefault(_name(own, axes), {})[own[LENGTH]] = cell["label"]
    took = records.results.groupby(["cell", "train_seed"])["train_seconds"].first().to_dict()
    out: dict[str, dict[str, list[Learned]]] = {}
    for metric in summary.metrics:
        own_name = summary.originals.get(metric, metric)
        if not own_name.startswith("FD") and own_name not in BITS:
            continue
        for name, by_length in cells.items():
            values = {n: summary.values.get(metric, {}).get(label, {}) for n, label in sorted(by_length.items())}
            for seed in dict.fromkeys(seed for found in values.values() for seed in found):
                steps = tuple(n for n, found in values.items() if seed in found)
                seconds = tuple(_number(took.get((by_length[n], seed))) for n in steps)
                curve = Learned(steps, seconds, tuple(values[n][seed] for n in steps))
                if len(steps) > 1:
                    out.setdefault(metric, {}).setdefault(name, []).append(curve)
    return out


def _name(settings: Mapping[str, Any], axes: list[str]) -> str:
    """A cell without its length; where nothing else varies, its schedule."""
    return " ".join(setting_text(settings.get(axis)) for axis in axes) or str(settings.get("schedule", ""))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value == value else None
