"""What real images score against the reference: the floor that stands beside every distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ddpmkit.distances.feasible import why_not
from ddpmkit.distances.named import Asked, built_in, metrics_of
from ddpmkit.distances.panel import allowed, take
from ddpmkit.distances.reference import Reference, hold, prepare_features
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Features, Images, Metric

Array = np.ndarray[Any, np.dtype[np.float64]]


def prepare(
    images: Images,
    features: Features,
    *,
    split: str = "test",
    floor: int | None = None,
    metrics: Asked | None = None,
    taken: Array | None = None,
    k: int | None = None,
    flip: bool = False,
) -> Reference:
    """Prepare a split of a data set as the reference.

    Args:
        images: The data set; its training split is what the copy check looks for.
        features: The extractor.
        split: ``test`` or ``train``; papers use train, which rewards copies.
        floor: How many real images of the other split to score for the floor; none when None.
        metrics: Of the floor, names of built-in ones or metrics; by default all built-in ones. Some, such as the copy
            check, have none.
        taken: The features of the split, where an earlier pass kept them.
        k: Neighbours, for the floor.
        flip: Whether the training images were shown mirrored too, so that samples may be copies of mirror images.

    Raises:
        DdpmkitError: for another split, an extractor that does not fit, or features that are not finite.
    """
    reference = hold(images, features, split=split, taken=taken, flip=flip)
    if floor is None:
        return reference
    other = images.train if split == "test" else images.test
    # Not the first ones: files are often sorted.
    real = other[np.sort(np.random.default_rng(0).permutation(len(other))[:floor])]
    return replace(reference, floor=taken_of(real, reference, allowed(metrics, reference, k)))


def floor_of_halves(
    reference: Reference, k: int | None = None, metrics: Asked | None = None
) -> dict[str, dict[str, Any]]:
    """What one half of the reference's features scores against the other; for a reference without another split.

    Args:
        reference: The reference.
        k: Neighbours.
        metrics: Names of built-in ones or metrics; those of pixels have no such floor.

    Raises:
        DdpmkitError: when the reference holds no features.
    """
    if reference.features is None:
        raise DdpmkitError("statistics alone have no halves", "pass images as the reference")
    half = len(reference.features) // 2
    if half < 2:
        return {}
    order = np.random.default_rng(0).permutation(len(reference.features))
    a, b = reference.features[order[:half]], reference.features[order[half:]]
    other = prepare_features(b)
    candidates = metrics_of(built_in(), k) if metrics is None else allowed(metrics, reference, k)
    chosen = {name: metric for name, metric in candidates.items() if metric.of_features and other.allows(metric)}
    return taken_of(a, other, chosen)


def taken_of(samples: Any, reference: Reference, metrics: Mapping[str, Metric]) -> dict[str, dict[str, Any]]:
    """What real images, or such as no network drew, score; of a metric without a floor, or that fails, nothing."""
    n, m = len(samples), reference.protocol["n_reference"]
    able = {
        name: metric
        for name, metric in metrics.items()
        if metric.has_floor and why_not(metric, n, m, train=reference.train, heldout=reference.heldout) is None
    }
    if not able:
        return {}
    measurements, _, _ = take(able, reference.beside(reference.checked(samples)), keep=True, by_name=True)
    return {name: {"value": one.value, "se": one.se, "n": n} for name, one in measurements.items()}
