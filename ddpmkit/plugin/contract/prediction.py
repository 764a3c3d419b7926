"""What a prediction must give: target, x0hat and divisor that agree, and a reason where a chain has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.contract.answers import checked_tensor, exact, numbers, own_copy, refuse, shown, twice

if TYPE_CHECKING:
    from torch import Tensor

    from ddpmkit.plugin.interfaces import Array, Factors, Prediction
    from ddpmkit.plugin.tables import Tables

EXACT = 1e-6  # of a formula in float64, far above its rounding


def impossible(prediction: Prediction, tables: Tables) -> str | None:
    """Return why a prediction can't be learned on a chain, one line of text; None where it can.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    subject = f"prediction '{prediction.name}'"
    with blame("prediction", prediction.name):
        first, again = prediction.impossible(own_copy(tables)), prediction.impossible(own_copy(tables))
    if first is not None and not (isinstance(first, str) and first.strip() and first.isprintable()):
        refuse(prediction, f"{subject}: why it is impossible is {shown(first)}, not a line of text and not None")
    if first != again:
        refuse(prediction, f"{subject} gives another reason why it is impossible when asked again")
    return first


def divisor(prediction: Prediction, tables: Tables) -> Array:
    """Return what turns weights on the x0-error into weights on a prediction's error, float64 (T,), each above 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    import numpy as np

    subject = f"prediction '{prediction.name}'"

    def ask() -> tuple[Array, ...]:
        with blame("prediction", prediction.name):
            divisors = prediction.divisor(own_copy(tables))
        return (numbers(subject, "divisors", divisors, (tables.T,)),)

    values: Array
    (values,) = twice(subject, "other divisors", ask)
    if (values <= 0).any():
        t = int(np.argmax(values <= 0))
        refuse(prediction, f"{subject} gives a divisor of {exact(values[t])} at step {t}, and each must be above 0")
    return values


def target(prediction: Prediction, at: Factors, x0: Tensor, eps: Tensor, xt: Tensor) -> Tensor:
    """Return what the network is asked for, like ``x0`` in shape and device, and floating.

    Raises:
        DdpmkitError: when it gives something else.
    """
    answer = prediction.target(at, x0, eps, xt)
    if answer is eps or answer is x0:  # what it was shown fits; the default pays for no question
        return answer
    checked_tensor(prediction, f"prediction '{prediction.name}': target", answer, tuple(x0.shape), x0.device)
    return answer


def x0hat(prediction: Prediction, at: Factors, xt: Tensor, out: Tensor) -> Tensor:
    """Return the estimate of x0 that a network's answer means, like ``xt`` in shape and device, and floating.

    Raises:
        DdpmkitError: when it gives something else.
    """
    estimate = prediction.x0hat(at, xt, out)
    checked_tensor(prediction, f"prediction '{prediction.name}': x0hat", estimate, tuple(xt.shape), xt.device)
    return estimate


@dataclass(frozen=True, eq=False)
class _Exact:
    """The factors of some steps in float64: a formula is asked for, not its rounding."""

    signal: Tensor
    noise: Tensor
    posterior_x0: Tensor
    posterior_xt: Tensor


def declared_divisor(prediction: Prediction, tables: Tables) -> Array:
    """Return the divisor, if target, x0hat and divisor agree: else a weighting would weigh what it does not mean.

    The target must mean x0 itself, and an answer that is off by d an x0hat that is off by d / sqrt(divisor). Asked at
    up to 32 steps in float64.

    Raises:
        DdpmkitError: with the step at which they do not.
    """
    import numpy as np
    import torch

    subject = f"prediction '{prediction.name}'"
    divisors = divisor(prediction, tables)
    t = np.unique(np.linspace(0, tables.T - 1, 32).round().astype(int))
    shape = (len(t), 1, 2, 2)

    def at_steps(table: Array) -> Tensor:
        return torch.from_numpy(table[t]).reshape(-1, 1, 1, 1)

    at = _Exact(*map(at_steps, (tables.signal, tables.noise2**0.5, tables.full_posterior_x0, tables.full_posterior_xt)))
    rng = np.random.default_rng(0)
    x0, eps, off = (torch.from_numpy(rng.standard_normal(shape)) for _ in range(3))
    xt, slope = at.signal * x0 + at.noise * eps, at_steps(divisors**0.5)
    with blame("prediction", prediction.name):
        targets, again = target(prediction, at, x0, eps, xt), target(prediction, at, x0, eps, xt)
        back, wrong = x0hat(prediction, at, xt, targets), x0hat(prediction, at, xt, targets + off)
    if not torch.equal(targets, again):
        refuse(prediction, f"{subject} gives another target when asked again", "it must not draw random numbers")
    misses = {  # in the answer's units, in which rounding is alike at all steps
        "x0hat of its own target is not x0": (back - x0) * slope,
        "its divisor is not (answer's error / x0-error)^2": ((wrong - back) * slope).abs() - off.abs(),
    }
    for problem, miss in misses.items():
        rows = (~(miss.abs() < EXACT * (1 + targets.abs()))).flatten(1).any(1)
        if bool(rows.any()):
            refuse(prediction, f"{subject}: at step {t[int(rows.int().argmax())]} {problem}")
    return divisors
