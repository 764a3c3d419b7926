"""The columns that a study's metrics of drawn images will have in tables, known before anything runs."""

from __future__ import annotations

from ddpmkit.distances.reference import distance_label
from ddpmkit.plugin import contract
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import Study, scored
from ddpmkit.study.metrics import of_images


def columns(study: Study, registry: Registry) -> tuple[str, ...]:
    """Return the columns, those of pixels once, with the first extractor.

    Raises:
        DdpmkitError: when a metric or an extractor can't be built.
    """
    return tuple(column for _, column in columns_of(study, registry))


def columns_of(study: Study, registry: Registry) -> tuple[tuple[str, str], ...]:
    """Return the columns, each behind its metric's own name.

    Raises:
        DdpmkitError: when a metric or an extractor can't be built.
    """
    metrics = {text: registry.build("metric", text) for text in of_images(study.metrics)}
    out: list[tuple[str, str]] = []
    for text, taken in scored(study) if metrics else ():
        features = registry.build("features", text)
        protocol = {"label": distance_label(features), "features": contract.label(features)}
        here = [m for name, m in metrics.items() if name in taken and (text == study.features[0] or m.of_features)]
        out += [(metric.name, contract.column(metric, protocol)) for metric in here]
    return tuple(out)
