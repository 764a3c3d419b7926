"""Metrics by name: a door for users, and the one place of the distances that turns names into components."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

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


def metrics_of(asked: Asked) -> dict[str, Metric]:
    """Return metrics under their names, built-in ones first, in the order of tables.

    Raises:
        DdpmkitError: for an unknown name or parameter, what is no metric, or two metrics of one name.
    """
    found: dict[str, Metric] = {}
    named = asked.items() if isinstance(asked, Mapping) else ((None, one) for one in asked)
    for name, one in named:
        metric = _registry().build("metric", one) if isinstance(one, str) else one
        if not isinstance(metric, Metric):
            raise DdpmkitError(f"{metric!r} is no metric", "pass names, as in metrics=['fd'], or metrics")
        key = str(metric) if name is None else name
        if found.setdefault(key, metric) != metric:
            raise DdpmkitError(f"two metrics are called '{key}'", "give each a name: metrics={'mine': ...}")
    order = list(built_in())
    places = {key: order.index(m.name) if m.name in order else len(order) for key, m in found.items()}
    return {key: found[key] for key in sorted(found, key=lambda key: places[key])}
