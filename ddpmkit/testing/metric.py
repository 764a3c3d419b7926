"""What is asked of a metric: samples near a reference, and samples far from it, by what it says it needs alone."""

from __future__ import annotations

import math

import numpy as np

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Metric, Sets
from ddpmkit.testing.check import NotAsked, fail, named

COUNT, SIDE, LEVELS = 100, 4, 17
CLOSE = 1e-6


def declarations(metric: Metric) -> None:
    """Title, unit, direction, needs and column are sound."""
    contract.column(metric, {"label": "FD-digits", "features": "digits", "n": COUNT, "n_reference": COUNT, "k": 5})


def value(metric: Metric) -> None:
    """It gives a finite number, from what it says that it needs and nothing else."""
    contract.measured(metric, _feasible(metric, 0.0))


def repeats_itself(metric: Metric) -> None:
    """Asked again it gives the same number."""
    first, again = _value(metric, _feasible(metric, 0.5)), _value(metric, _feasible(metric, 0.5))
    if first != again:
        fail(
            f"metric '{metric.name}' gives another value when asked again, {first:.6g} and {again:.6g}",
            "draw from numpy.random.default_rng(0), and keep nothing",
        )


def better_is_better(metric: Metric) -> None:
    """Samples near the reference are not worse than samples far from it, by the direction that it declares."""
    if metric.better == "none":
        raise NotAsked("it ranks nothing")
    near, far = _value(metric, _feasible(metric, 0.0)), _value(metric, _feasible(metric, 2.0))
    if near > far if metric.better == "lower" else near < far:
        fail(
            f"metric '{metric.name}' says that {metric.better} is better, and gives {near:.6g} near the reference and "
            f"{far:.6g} far from it",
            "correct better, or the sign",
        )


def symmetric(metric: Metric) -> None:
    """Where it says symmetric = True, samples and reference can change places."""
    if not metric.symmetric:
        raise NotAsked("it does not say that it is symmetric")
    one, other = _value(metric, _feasible(metric, 0.5)), _value(metric, _feasible(metric, 0.5, swapped=True))
    if not math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE):
        fail(
            f"metric '{metric.name}' says symmetric = True and is not symmetric: {one:.6g}, and {other:.6g} with "
            "samples and reference in each other's place",
            "leave out symmetric = True, or look for a term of one side alone",
        )


def _value(metric: Metric, sets: Sets) -> float:
    return float(contract.measured(metric, sets).value)


def _feasible(metric: Metric, shift: float, *, swapped: bool = False) -> Sets:
    """Samples that are ``shift`` deviations from the reference, if the metric takes so many of them."""
    levels = [_levels(seed, shift if seed == 1 else 0.0) for seed in (1, 2, 3, 4)]
    samples, reference, train, heldout = levels if not swapped else [levels[1], levels[0], *levels[2:]]
    if reason := contract.why_not(metric, COUNT, COUNT, train, heldout):
        raise NotAsked(reason)
    x, y = _features(samples), _features(reference)
    needs = metric.needs
    pixels = "pixels" in needs or metric.pixels_first
    return Sets(
        x=x,
        mu=_fixed(y.mean(0)),
        cov=_fixed(np.cov(y.T)),
        n_reference=COUNT,
        y=y if "features" in needs or "pixels" in needs else None,
        x_levels=samples if pixels or "training" in needs else None,
        y_levels=reference if pixels else None,
        train=train if "training" in needs else None,
        heldout=heldout if "training" in needs else None,
        levels=LEVELS,
    )


def _levels(seed: int, shift: float) -> np.ndarray:
    draws = np.random.default_rng(seed).normal(7 + 2.5 * shift, 2.5, (COUNT, 1, SIDE, SIDE))
    return _fixed(np.clip(draws.round(), 0, LEVELS - 1).astype(np.uint8))


def _features(levels: np.ndarray) -> np.ndarray:
    return _fixed(levels.reshape(len(levels), -1)[:, :6].astype(np.float64))


def _fixed(array: np.ndarray) -> np.ndarray:
    """An array that nobody can write, as those that a study shows."""
    array.setflags(write=False)
    return array


CHECKS = named(declarations, value, repeats_itself, better_is_better, symmetric)
