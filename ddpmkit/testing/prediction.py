"""What is asked of a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Prediction
from ddpmkit.testing.chains import chain
from ddpmkit.testing.check import NotAsked, fail, named
from ddpmkit.testing.process import leaves_alone

if TYPE_CHECKING:
    from torch import Tensor


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


def passes_a_gradient(prediction: Prediction) -> None:
    """Of float32 it makes float32, and x0hat passes a gradient to the network's answer, as a loss on x0 needs."""
    import torch

    at, x0, eps, xt = _shown()
    out = prediction.target(at, x0, eps, xt).detach().requires_grad_()
    estimate = prediction.x0hat(at, xt, out)
    for what, tensor in (("target", out), ("x0hat", estimate)):
        if tensor.dtype != torch.float32:
            fail(
                f"prediction '{prediction.name}': its {what} of float32 images is {tensor.dtype}",
                "leave precision to ddpmkit: compute in the dtype of the images",
            )
    if not estimate.requires_grad:
        fail(
            f"prediction '{prediction.name}': x0hat passes no gradient to the network's answer",
            "compute it in torch, without detach",
        )


def leaves_the_process_alone(prediction: Prediction) -> None:
    """It seeds no global generator, and changes no setting of the process."""
    at, *shown = _shown()
    tables = chain("cosine", 50)
    leaves_alone(
        prediction,
        lambda: (
            prediction.impossible(tables),
            prediction.divisor(tables),
            prediction.x0hat(at, shown[-1], prediction.target(at, *shown)),
        ),
    )


def _shown() -> tuple[Any, Tensor, Tensor, Tensor]:
    """Factors of a step, and two images as float32: x0, eps and x_t."""
    import torch

    class Whole:
        signal, noise, posterior_x0, posterior_xt = (torch.full((2, 1, 1, 1), v) for v in (0.8, 0.6, 0.3, 0.7))

    x0, eps = torch.linspace(-1, 1, 8).reshape(2, 1, 2, 2), torch.linspace(2, -1, 8).reshape(2, 1, 2, 2)
    return Whole(), x0, eps, 0.8 * x0 + 0.6 * eps


CHECKS = named(agrees_with_itself, factors_of_whole_steps, passes_a_gradient, leaves_the_process_alone)
