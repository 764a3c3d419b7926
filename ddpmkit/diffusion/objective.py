"""The training loss of one batch, per image, from the network's output.

A weighting states its factor w_t on the mean squared x0-error. In the space of the prediction that is
w_t / SNR_t for eps, w_t for x0, w_t / (SNR_t + 1) for v and w_t / c_t^2 for mu.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.gaussian import Coefficients, Prediction, gather, target, to_x0
from ddpmkit.diffusion.likelihood import decoder_nll
from ddpmkit.diffusion.tables import Array, Tables
from ddpmkit.errors import DdpmkitError


def prediction_weights(tables: Tables, x0_weights: Array, prediction: Prediction) -> Array:
    """Convert factors on the x0-error into factors on the error of the prediction; both float64 (T,).

    Raises:
        DdpmkitError: for v off the variance-preserving family and for eps where SNR_t = 0: they are not defined.
    """
    if prediction == "v" and not tables.variance_preserving:
        raise DdpmkitError("v-prediction needs a variance-preserving schedule", "use --prediction eps or x0")
    if prediction == "eps" and not tables.signal.all():
        raise DdpmkitError("eps-prediction is undefined where no signal is left", "use --prediction v or x0")
    divisor = {"eps": tables.snr, "x0": np.ones(tables.T), "v": tables.snr + 1, "mu": tables.mean_x0**2}[prediction]
    return np.asarray(x0_weights / divisor)


@dataclass(frozen=True, eq=False)
class Objective:
    """What the loss needs besides the batch, on the device.

    Attributes:
        weights: factor on the squared error of the prediction, float32 (T,).
        decoder_sigma: the decoder's standard deviation where t=1 is the decoder's own term, else None.
        levels: number K of grey levels, for the decoder's bins.
    """

    coefficients: Coefficients
    prediction: Prediction
    weights: Tensor
    decoder_sigma: float | None
    levels: int


@dataclass(frozen=True, eq=False)
class Loss:
    """Per-image terms, each (B,): the weighted loss that is minimised, and the raw eps-MSE that is only logged."""

    weighted: Tensor
    eps_mse: Tensor


def loss(o: Objective, x0: Tensor, t: Tensor, eps: Tensor, xt: Tensor, out: Tensor) -> Loss:
    """Return the loss of each image: w_t ||target - out||^2 / d, and at t=1 the decoder's NLL where asked.

    Ho et al. 2020, eq. 14 with w = 1 and eq. 12 with the VLB's weight; nats per dimension for the latter.
    Shapes: x0, eps, xt, out (B, C, H, W); t int64 (B,).
    """
    c = o.coefficients
    error = (out - target(c, o.prediction, x0, t, eps)).square().flatten(1).mean(1)
    weighted = o.weights[t] * error
    if o.decoder_sigma is None and o.prediction == "eps":
        return Loss(weighted, error.detach())
    x0_hat = to_x0(c, o.prediction, xt, t, out)
    if o.decoder_sigma is not None:
        first = t == 0
        # Elsewhere the decoder sees its own target, so that no gradient of a term that is dropped can overflow.
        mean = torch.where(gather(first, torch.arange(len(t), device=t.device), x0), x0_hat, x0)
        nll = decoder_nll(x0, mean, o.decoder_sigma, o.levels).flatten(1).mean(1)
        weighted = torch.where(first, nll, weighted)
    with torch.no_grad():
        ratio = gather(c.signal, t, x0) / gather(c.noise, t, x0)
        eps_mse = error if o.prediction == "eps" else (ratio * (x0_hat - x0)).square().flatten(1).mean(1)
    return Loss(weighted, eps_mse.detach())
