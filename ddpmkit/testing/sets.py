"""What a metric is shown: samples near a reference or far from it, as much of them as it says that it needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Metric, Sets
from ddpmkit.testing.check import NotAsked

COUNT, FEW, SIDE, LEVELS = 60, 24, 4, 17


def feasible(metric: Metric, shift: float, *, swapped: bool = False, n: int = COUNT, m: int = COUNT) -> Sets:
    """Return samples that are ``shift`` deviations from the reference, if the metric takes so many of them.

    Raises:
        NotAsked: when it does not.
    """
    levels = [_levels(seed, shift if seed == 1 else 0.0) for seed in (1, 2, 3, 4)]
    samples, reference, train, heldout = levels if not swapped else [levels[1], levels[0], *levels[2:]]
    samples, reference = _fixed(samples[:n]), _fixed(reference[:m])
    if reason := contract.why_not(metric, n, m, train, heldout):
        raise NotAsked(reason)
    return shown(metric, samples, reference, train, heldout)


def small(metric: Metric, shift: float) -> Sets:
    """Return few samples where the metric takes so few, since some are slow; else as many as ever."""
    try:
        return feasible(metric, shift, n=FEW, m=FEW)
    except NotAsked:
        return feasible(metric, shift)


def equal(metric: Metric) -> Sets:
    """Return few samples that are the reference itself, in the same order."""
    sets = small(metric, 0.0)
    n = sets.n_reference
    samples, _, train, heldout = (_levels(seed, 0.0) for seed in (1, 2, 3, 4))
    return shown(metric, _fixed(samples[:n]), _fixed(samples[:n]), train, heldout)


def shown(metric: Metric, samples: Any, reference: Any, train: Any, heldout: Any) -> Sets:
    """Return sets of grey levels and their features, with what the metric says that it needs alone."""
    x, y = _features(samples), _features(reference)
    needs = metric.needs
    pixels = "pixels" in needs or metric.pixels_first
    return Sets(
        x=x,
        mu=_fixed(y.mean(0)),
        cov=_fixed(np.cov(y.T)),
        n_reference=len(y),
        y=y if "features" in needs or "pixels" in needs else None,
        x_levels=samples if pixels or "training" in needs else None,
        y_levels=reference if pixels else None,
        train=train if "training" in needs else None,
        heldout=heldout if "training" in needs else None,
        levels=LEVELS,
    )


def reordered(sets: Sets, samples: Any, reference: Any) -> Sets:
    """Return the same sets with their samples and their reference taken by indices: another order, or a part."""
    y = None if sets.y is None else _fixed(sets.y[reference])
    return replace(
        sets,
        x=_fixed(sets.x[samples]),
        y=y,
        x_levels=None if sets.x_levels is None else _fixed(sets.x_levels[samples]),
        y_levels=None if sets.y_levels is None else _fixed(sets.y_levels[reference]),
        _known={},
    )


def _levels(seed: int, shift: float) -> Any:
    draws = np.random.default_rng(seed).normal(7 + 2.5 * shift, 2.5, (COUNT, 1, SIDE, SIDE))
    return _fixed(np.clip(draws.round(), 0, LEVELS - 1).astype(np.uint8))


def _features(levels: Any) -> Any:
    return _fixed(levels.reshape(len(levels), -1)[:, :6].astype(np.float64))


def _fixed(array: Any) -> Any:
    """An array that nobody can write, as those that a study shows."""
    array.setflags(write=False)
    return array
