"""What is asked of a prediction."""

from __future__ import annotations

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Prediction
from ddpmkit.testing.chains import chain
from ddpmkit.testing.check import NotAsked, fail, named


def agrees_with_itself(prediction: Prediction) -> None:
    """Its target means x0 itself, and its divisor is (answer's error / x0-error)^2, at every step."""
    tried = 0
    for schedule, T in (("cosine", 2), ("linear", 1000), ("random-walk", 50), ("zero-snr", 50)):
        tables = chain(schedule, T)
        if contract.impossible(prediction, tables) is None:
            contract.declared_divisor(prediction, tables)
            tried += 1
    if not tried:
        raise NotAsked("it says that it is impossible on every chain that was tried")


def factors_of_whole_steps(prediction: Prediction) -> None:
    """It asks for the factors of the posterior mean only where it says between_steps = False."""
    import torch

    class Between:
        signal, noise = torch.full((2, 1, 1, 1), 0.8), torch.full((2, 1, 1, 1), 0.6)

    if not prediction.between_steps:
        raise NotAsked("it says between_steps = False")
    x0, eps = torch.ones((2, 1, 2, 2)), torch.zeros((2, 1, 2, 2))
    xt = 0.8 * x0
    try:
        prediction.x0hat(Between(), xt, prediction.target(Between(), x0, eps, xt))  # type: ignore[arg-type] # less
    except AttributeError as err:
        fail(
            f"prediction '{prediction.name}' asks for what is known of whole steps alone: {err}",
            "say between_steps = False in its class",
        )


CHECKS = named(agrees_with_itself, factors_of_whole_steps)
