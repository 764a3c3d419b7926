"""What is asked of a metric: samples near a reference, and samples far from it, by what it says it needs alone."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Measurement, Metric, Sets
from ddpmkit.testing.check import NotAsked, fail, named
from ddpmkit.testing.process import leaves_alone
from ddpmkit.testing.sets import COUNT, equal, feasible, reordered, small

CLOSE = 1e-6
TIMES = 3.0  # the change of a value that sorted images make, over that of images in another random order
SAME = 2.5  # an influence is of the right size within this factor


def declarations(metric: Metric) -> None:
    """Title, unit, direction, needs and column are sound."""
    contract.column(metric, {"label": "FD-digits", "features": "digits", "n": COUNT, "n_reference": COUNT, "k": 5})


def value(metric: Metric) -> None:
    """It gives a finite number, from what it says that it needs and nothing else."""
    _known(metric, 0.0)


def takes_what_it_says(metric: Metric) -> None:
    """It gives a finite number of equal sets too, of stored statistics, and of as few as why_not does not refuse."""
    _known(metric, 0.0)  # what it can't be asked at all is told there
    _measured(metric, equal(metric), "of samples that are the reference itself", endless=True)
    if metric.needs == ("statistics",):
        sets = replace(feasible(metric, 0.0), n_reference=0)
        if contract.why_not(metric, len(sets.x), 0, None, None) is None:
            _measured(metric, sets, "with n_reference = 0, as of stored statistics")
    for n, m in ((2, 2), (3, COUNT), (COUNT, 3)):
        try:
            few = feasible(metric, 0.0, n=n, m=m)
        except NotAsked:
            continue
        _measured(metric, few, f"of {n} samples and {m} reference images, which why_not does not refuse")


def repeats_itself(metric: Metric) -> None:
    """Asked again it gives the same number."""
    first = _known(metric, 0.5).value
    np.random.seed(1)  # whatever stands in the global generators, which are put back
    random.seed(1)
    again = _value(metric, feasible(metric, 0.5))
    if first != again:
        fail(
            f"metric '{metric.name}' gives another value when asked again, {first:.6g} and {again:.6g}",
            "draw from numpy.random.default_rng(0), and keep nothing",
        )


def does_not_depend_on_order(metric: Metric) -> None:
    """Images in another order give the same number; where folds or parts are drawn, one that is not far from it."""
    sets = small(metric, 0.5)
    n, m = len(sets.x), sets.n_reference
    draws = np.random.default_rng(0)
    known, other = _value(metric, sets), _value(metric, reordered(sets, draws.permutation(n), draws.permutation(m)))
    if math.isclose(known, other, rel_tol=CLOSE, abs_tol=CLOSE):
        return
    same = equal(metric)
    turned = reordered(same, np.arange(len(same.x))[::-1], np.arange(same.n_reference))
    moved, range_of_it = (_value(metric, turned) - _value(metric, same)), _far(metric) - _known(metric, 0.0).value
    if abs(moved) > 0.3 * abs(range_of_it):  # far above what is drawn by a seed; what is compared is pairs
        fail(
            f"metric '{metric.name}' compares images in pairs: of samples that are the reference it changes by "
            f"{abs(moved):.4g} when their order is turned round, and it is {abs(range_of_it):.4g} from near to far",
            "compare sets, and not the first image with the first",
        )
    sets = feasible(metric, 0.5)
    n, m, known = len(sets.x), sets.n_reference, _known(metric, 0.5).value
    other, third = (_value(metric, reordered(sets, draws.permutation(n), draws.permutation(m))) for _ in range(2))
    x, y = (np.argsort(v.reshape(len(v), -1).mean(1), kind="stable") for v in (sets.x, _reference(sets)))
    usual = max(abs(other - known), abs(third - known))
    for order in (x, x[::-1]):
        ordered = _value(metric, reordered(sets, order, y))
        if abs(ordered - known) > TIMES * usual + 0.1 * abs(known):
            fail(
                f"metric '{metric.name}' depends on the order of images: it is {known:.6g}, and {ordered:.6g} of the "
                "same images sorted by their grey",
                "compare sets, and not the first image with the first; draw what part is taken from a fixed seed",
            )


def influence(metric: Metric) -> None:
    """Its influences say what leaving samples out does to its value: their order, sign and size."""
    sets = feasible(metric, 0.5)
    n = len(sets.x)
    whole = _named(_known(metric, 0.5))
    for name, found in whole.items():
        if found.influence is None or not found.influence.any():
            continue
        order = np.argsort(found.influence, kind="stable")
        rest = np.sort(order[: n - n // 5]), np.sort(order[n // 5 :])  # without the highest, and without the lowest
        said = float(found.influence[rest[0]].mean() - found.influence[rest[1]].mean())
        everything = np.arange(sets.n_reference)
        without = [_named(contract.measured(metric, reordered(sets, part, everything)))[name] for part in rest]
        seen = without[0].value - without[1].value
        if said and not 1 / SAME < seen / said < SAME:
            fail(
                f"metric '{metric.name}': by influences {name} changes by {said:.4g} where the fifth of samples with "
                f"the highest is left out instead of the lowest; it changes by {seen:.4g}",
                "give influence[i] for sample i, as value = mean(influence) to first order; its sd over sqrt(N) is the "
                "standard error",
            )


def looks_at_the_samples(metric: Metric) -> None:
    """Other samples give another number: near the reference, far from it, all black, or all the same."""
    known = _known(metric, 0.0).value
    if _known(metric, 0.5).value != known:
        return
    for other in _other_samples(metric):
        try:
            if _value(metric, other) != known:
                return
        except Exception:  # whatever a metric raises of such samples, as of equal ones: it looked at them
            return
    fail(
        f"metric '{metric.name}' gives {known:.6g} whatever the samples are",
        "compute it from sets.x or sets.x_levels, and keep nothing between two calls",
    )


def better_is_better(metric: Metric) -> None:
    """Samples near the reference are not worse than samples far from it, by the direction that it declares."""
    if metric.better == "none":
        raise NotAsked("it ranks nothing")
    near, far = _known(metric, 0.0).value, _far(metric)
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
    one, other = _value(metric, feasible(metric, 0.5)), _value(metric, feasible(metric, 0.5, swapped=True))
    if not math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE):
        fail(
            f"metric '{metric.name}' says symmetric = True and is not symmetric: {one:.6g}, and {other:.6g} with "
            "samples and reference in each other's place",
            "leave out symmetric = True, or look for a term of one side alone",
        )


def leaves_the_process_alone(metric: Metric) -> None:
    """It seeds no global generator, and changes no setting of the process."""
    sets = small(metric, 0.5)
    leaves_alone(metric, lambda: metric.value(sets))


def _measured(metric: Metric, sets: Sets, which: str, *, endless: bool = False) -> None:
    """Measure such sets; where ``endless``, a logarithm may be infinite."""
    try:
        contract.measured(metric, sets)
    except Exception as err:  # whatever it raises is its outcome; of which sets is said here
        if endless and isinstance(err, DdpmkitError) and math.isinf(_plain(metric.value(sets))):
            return
        raised = err.message if isinstance(err, DdpmkitError) else f"{type(err).__name__}: {err}"
        raise DdpmkitError(
            f"metric '{metric.name}' fails {which}: {raised}",
            "give a finite number, or say in why_not(n, n_reference) why there are too few",
        ) from None


def _plain(found: Any) -> float:
    """What a metric gives as a number, if it is one."""
    value = found.value if isinstance(found, Measurement) else found
    return float(value) if isinstance(value, (int, float, np.number)) else 0.0


def _named(measurement: Measurement) -> dict[str, Measurement]:
    """A measurement and what stands beside it, by the name for errors."""
    return {"its value": measurement, **{f"'{name}'": one for name, one in measurement.beside.items()}}


def _reference(sets: Sets) -> Any:
    """What there is of each reference image, in rows; their numbers, where there is nothing."""
    found = sets.y if sets.y is not None else sets.y_levels
    return np.arange(sets.n_reference)[:, None] if found is None else found


def _other_samples(metric: Metric) -> Iterator[Sets]:
    yield feasible(metric, 2.0)
    sets = feasible(metric, 0.0)
    for x, levels in ((0.0, 0), (16.0, 16)):
        x_levels = None if sets.x_levels is None else np.full_like(sets.x_levels, levels)
        yield replace(sets, x=np.full_like(sets.x, x), x_levels=x_levels, _known={})


@functools.lru_cache(maxsize=8)
def _known(metric: Metric, shift: float) -> Measurement:
    """What it measures of samples so far from the reference; asked once, since some are slow."""
    return contract.measured(metric, feasible(metric, shift))


def _far(metric: Metric) -> float:
    return _known(metric, 2.0).value


def _value(metric: Metric, sets: Sets) -> float:
    return float(contract.measured(metric, sets).value)


CHECKS = named(
    declarations,
    value,
    takes_what_it_says,
    repeats_itself,
    does_not_depend_on_order,
    influence,
    looks_at_the_samples,
    better_is_better,
    symmetric,
    leaves_the_process_alone,
)
