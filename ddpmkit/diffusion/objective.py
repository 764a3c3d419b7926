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
from ddpmkit.diffusion.variance import LearnedVariance
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
class BoundTerm:
    """What L_{t-1} of a learned sigma needs, on the device; float32 (T,) each.

    Attributes:
        log_tilde: log beta-tilde_t; entry 0 is not used.
        factor: c_t^2, the square of the factor on x0 in the posterior mean.
        share: factor on the term, nats per dimension.
        mean_held: whether the term moves the variance alone.
    """

    variance: LearnedVariance
    log_tilde: Tensor
    factor: Tensor
    share: float
    mean_held: bool


@dataclass(frozen=True, eq=False)
class Objective:
    """What the loss needs besides the batch, on the device.

    Attributes:
        weights: factor on the squared error of the prediction, float32 (T,).
        decoder_sigma: the decoder's standard deviation where t=1 is the decoder's own term, else None.
        levels: number K of grey levels, for the decoder's bins.
        bound: the term that teaches a learned sigma; the network then has twice the channels.
    """

    coefficients: Coefficients
    prediction: Prediction
    weights: Tensor
    decoder_sigma: float | None
    levels: int
    bound: BoundTerm | None = None


@dataclass(frozen=True, eq=False)
class Loss:
    """Per-image terms, each (B,): the weighted loss that is minimised, and the raw eps-MSE that is only logged."""

    weighted: Tensor
    eps_mse: Tensor


def loss(o: Objective, x0: Tensor, t: Tensor, eps: Tensor, xt: Tensor, out: Tensor) -> Loss:
    """Return the loss of each image: w_t ||target - out||^2 / d, and at t=1 the decoder's NLL where asked.

    Ho et al. 2020, eq. 14 with w = 1 and eq. 12 with the VLB's weight; nats per dimension for the latter. With a
    learned sigma a share of its bound term is added, Nichol & Dhariwal 2021, eq. 16.
    Shapes: x0, eps, xt (B, C, H, W), out the same, or (B, 2C, H, W) with a learned sigma; t int64 (B,).
    """
    c = o.coefficients
    if o.bound is not None:
        out, extra = out.chunk(2, dim=1)
        x0_hat = to_x0(c, o.prediction, xt, t, out)
        term = bound_term(o.bound, x0, x0_hat.detach() if o.bound.mean_held else x0_hat, t, extra, o.levels)
        error = (out - target(c, o.prediction, x0, t, eps)).square().flatten(1).mean(1)
        return Loss(o.weights[t] * error + o.bound.share * term, _eps_mse(c, o.prediction, error, x0_hat, x0, t))
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
    return Loss(weighted, _eps_mse(c, o.prediction, error, x0_hat, x0, t))


def bound_term(b: BoundTerm, x0: Tensor, x0_hat: Tensor, t: Tensor, extra: Tensor, levels: int) -> Tensor:
    """Return L_{t-1} of a learned sigma, and L_0 at t=1, in nats per dimension, (B,).

    Per pixel 1/2 [ beta-tilde_t / sigma^2 - 1 + ln(sigma^2 / beta-tilde_t) + c_t^2 (x0 - x0hat)^2 / sigma^2 ], Ho et
    al. 2020, eq. 5's KL between Gaussians; at t=1 the decoder's NLL with the network's sigma, eq. 13.
    """
    log_sigma2 = b.variance(t, extra)
    log_tilde, factor = gather(b.log_tilde, t, x0), gather(b.factor, t, x0)
    ratio = torch.exp(log_tilde - log_sigma2)
    squared = factor * (x0 - x0_hat).square() * torch.exp(-log_sigma2)
    kl = 0.5 * (ratio - 1 + log_sigma2 - log_tilde + squared)
    first = gather(t == 0, torch.arange(len(t), device=t.device), x0)
    # Elsewhere the decoder sees its own target at sigma 1, so that no gradient of a dropped term can overflow.
    mean = torch.where(first, x0_hat, x0)
    sigma = torch.exp(torch.where(first, log_sigma2, torch.zeros_like(log_sigma2)) / 2)
    return torch.where(first, decoder_nll(x0, mean, sigma, levels), kl).flatten(1).mean(1)


@torch.no_grad()
def _eps_mse(c: Coefficients, prediction: Prediction, error: Tensor, x0_hat: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """Return the mean squared eps-error of each image, whatever the network predicts."""
    if prediction == "eps":
        return error.detach()
    ratio = gather(c.signal, t, x0) / gather(c.noise, t, x0)
    return (ratio * (x0_hat - x0)).square().flatten(1).mean(1)
