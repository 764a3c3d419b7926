"""Metrics by name: a door for users, and the one place of the distances that turns names into components."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Metric
from ddpmkit.plugin.registry import Registry

K = 5  # neighbours, where nobody says how many
# Built-in ones by their specs; metrics, a plugin's too; or metrics under names of one's own.
Asked = Iterable[str | Metric] | Mapping[str, Metric]


@functools.cache
def _registry() -> Registry:
    return Registry(installed=False)


@functools.cache
def built_in() -> dict[str, Metric]:
    """Every built-in metric under its name, in the order of tables."""
    return {entry.name: _registry().build("metric", entry.name) for entry in _registry().entries("metric")}


def metrics_of(asked: Asked, k: int | None = None, registry: Registry | None = None) -> dict[str, Metric]:
    """Return metrics under their names, built-in ones first, in the order of tables.

    Args:
        asked: Names or metrics.
        k: Neighbours of built-in metrics whose own text does not say.
        registry: Where names are looked up; the built-in metrics by default.

    Raises:
        DdpmkitError: for an unknown name or parameter, what is no metric, or two metrics of one name.
    """
    found: dict[str, Metric] = {}
    named = asked.items() if isinstance(asked, Mapping) else ((None, one) for one in asked)
    for name, one in named:
        metric = (registry or _registry()).build("metric", one) if isinstance(one, str) else one
        if not isinstance(metric, Metric):
            raise DdpmkitError(f"{metric!r} is no metric", "pass names, as in metrics=['fd'], or metrics")
        key = str(metric) if name is None else name
        if not (isinstance(one, str) and _says_k(one)):
            metric = with_neighbours(metric, k)
        if found.setdefault(key, metric) != metric:
            raise DdpmkitError(f"two metrics are called '{key}'", "give each a name: metrics={'mine': ...}")
    order = list(built_in())
    places = {key: order.index(m.name) if m.name in order else len(order) for key, m in found.items()}
    return {key: found[key] for key in sorted(found, key=lambda key: places[key])}


def with_neighbours(metric: Metric, k: int | None) -> Metric:
    """Return a built-in metric of neighbours with k of them, if it has the default number; others as they are."""
    if k is None or not of_neighbours(metric) or metric != built_in()[metric.name]:
        return metric
    changes: dict[str, Any] = {"k": k}
    return replace(metric, **changes)


def of_neighbours(metric: Metric) -> bool:
    """Whether it is one of ours with a parameter k; a plugin's k may be anything."""
    return type(metric) is type(built_in().get(metric.name)) and "k" in {f.name for f in fields(metric)}


def _says_k(text: str) -> bool:
    """Whether a metric's own text says its neighbours, ``precision:k=3``; a colon in a value would be written %3A."""
    return any(part.partition("=")[0].strip() == "k" for part in text.split(":")[1:])
