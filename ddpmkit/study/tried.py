"""The parts of a plan, tried before anything runs: networks built without memory, extractors loaded."""

from __future__ import annotations

from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.impossible import of_the_cell
from ddpmkit.study.metrics import of_images
from ddpmkit.study.plan import Plan
from ddpmkit.study.planning import build_without_memory, classes, network_of
from ddpmkit.study.settings import Settings


def try_parts(plan: Plan, registry: Registry) -> dict[tuple[Any, ...], DdpmkitError]:
    """Return the networks of a plan that can't be, as ``network_of`` names them, and why.

    Raises:
        DdpmkitError: for an extractor that does not load, or a component that raises.
    """
    tried: dict[tuple[Any, ...], DdpmkitError | None] = {}
    refused = {}
    for key, cell in {network_of(c.settings): c for c in plan.cells}.items():
        s = cell.settings
        alike = s.backbone, registry.build("sigma", s.sigma).learned, s.dropout, s.conditional
        if alike not in tried:
            tried[alike] = None
            try:
                _try_network(plan, s, registry)
            except DdpmkitError as err:
                if not of_the_cell(err):
                    raise
                tried[alike] = err
        if (why := tried[alike]) is not None:
            refused[key] = why
    if of_images(plan.study.metrics) and not refused:
        for text in plan.study.features:
            contract.extractor(registry.build("features", text), plan.images)
    return refused


def _try_network(plan: Plan, s: Settings, registry: Registry) -> None:
    """Build the network of a cell, and look at its dropout.

    Raises:
        DdpmkitError: when it can't be built, or has no dropout that could be set.
    """
    backbone, learned = registry.build("backbone", s.backbone), registry.build("sigma", s.sigma).learned
    net = build_without_memory(backbone, plan.images, learned=learned, classes=classes(s, plan.images))
    layers = contract.dropout_layers(net)
    rates = sorted({rate for layer, attribute in layers if (rate := getattr(layer, attribute)) > 0})
    if s.dropout and not layers:
        raise DdpmkitError(
            f"backbone '{backbone.name}' has no dropout layer that --dropout {s.dropout:g} could set",
            "leave out --dropout, or give the network an nn.Dropout",
        )
    if s.dropout is None and rates:
        told = ", ".join(f"{rate:g}" for rate in rates)
        plan.warn(f"backbone '{backbone.name}' keeps its own dropout of {told}; --dropout sets all layers")


def keeps_its_own(plan: Plan, registry: Registry) -> bool:
    """Whether a plugin's network may drop out by rates of its own, which a report is to say, run or not."""
    left = dict.fromkeys(c.settings.backbone for c in plan.cells if c.settings.dropout is None)
    return not all(registry.is_builtin(registry.build("backbone", text)) for text in left)
