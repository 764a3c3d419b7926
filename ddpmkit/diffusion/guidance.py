"""Classifier-free guidance: two answers of one network, with the label and without, as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what plans ask of this file needs no torch
    from torch import Tensor

    from ddpmkit.diffusion.denoise import Predict


def guided(predict: Predict, strength: float) -> Predict:
    """Return predict(xt, t, y) guided by strength w: eps = (1 + w) eps(x_t, y) - w eps(x_t), without a label.

    Ho & Salimans 2022 (arXiv 2207.12598), eq. 6. diffusers' guidance_scale is 1 + w. x0hat is affine in every
    prediction at one x_t, and 1 + w - w = 1, so that x0hat = (1 + w) x0hat(x_t, y) - w x0hat(x_t) says the same. It is
    not clipped: a sampler clips what comes out. A learned log sigma^2 is that of the pass with the label.

    w = 0 asks once, with the label, and w = -1 once, without: bit for bit the conditional and the unconditional model.
    Otherwise the network is asked twice, each time with as many images, for floating point differs between batch sizes.

    Args:
        predict: Of a network that was trained with labels; where ``y`` is None it is shown none.
        strength: w.
    """
    if strength == 0:
        return predict

    def mixed(xt: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if y is None or strength == -1:
            return predict(xt, t)
        x0_hat, log_sigma2 = predict(xt, t, y)
        without, _ = predict(xt, t)
        return (1 + strength) * x0_hat - strength * without, log_sigma2

    return mixed


def passes(strength: float) -> int:
    """Return how often the network is asked at each step."""
    return 1 if strength in (0, -1) else 2
