"""The training loss of one batch, per image, from the network's output.

A weighting states its factor w_t on the mean squared x0-error. In the space of the prediction that is
w_t / SNR_t for eps, w_t for x0, w_t / (SNR_t + 1) for v and w_t / c_t^2 for mu.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.bound_terms import decoder_nll, middle_kl
from ddpmkit.diffusion.denoise import Denoiser
from ddpmkit.diffusion.gaussian import gather
from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.contract import divisor, impossible
from ddpmkit.plugin.interfaces import Factors, Prediction


def prediction_weights(tables: Tables, x0_weights: Array, prediction: Prediction) -> Array:
    """Convert factors on the x0-error into factors on the error of the prediction; both float64 (T,).

    Raises:
        DdpmkitError: where the prediction says that it is impossible on this chain, and what else there is.
    """
    check_possible(prediction, tables)
    return np.asarray(x0_weights / divisor(prediction, tables))


def check_possible(prediction: Prediction, tables: Tables) -> None:
    """Refuse a prediction that can't be learned on a chain: v off the variance-preserving family, eps at SNR_t = 0.

    Raises:
        DdpmkitError: with its reason, and what else there is.
    """
    reason = impossible(prediction, tables)
    if reason is not None:
        raise DdpmkitError(reason, f"use --prediction {prediction.instead}")


@dataclass(frozen=True, eq=False)
class BoundTerm:
    """What L_{t-1} of a learned sigma needs, on the device; float32 (T,) each.

    Attributes:
        log_tilde: log beta-tilde_t; entry 0 is not used.
        c2: c_t^2, the square of the factor on x0 in the posterior mean.
        share: factor on the term, nats per dimension.
        detach_mean: whether the term moves the variance alone.
    """

    log_tilde: Tensor
    c2: Tensor
    share: float
    detach_mean: bool


@dataclass(frozen=True, eq=False)
class Objective:
    """What the loss needs besides the batch, on the device.

    Attributes:
        denoiser: what gives the network's answer its meaning; with a learned sigma it has twice the channels.
        weights: factor on the squared error of the prediction, float32 (T,).
        decoder_sigma: the decoder's standard deviation where t=1 is the decoder's own term, else None.
        levels: number K of grey levels, for the decoder's bins.
        of_eps: whether the error of the prediction is that of eps, so that it need not be worked out to be logged.
        bound: the term that teaches a learned sigma.
    """

    denoiser: Denoiser
    weights: Tensor
    decoder_sigma: float | None
    levels: int
    of_eps: bool
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
    d = o.denoiser
    at = d.coefficients.at(t, x0)
    predicted, extra = d.parts(out)
    error = (predicted - d.target(at, x0, eps, xt)).square().flatten(1).mean(1)
    weighted = o.weights[t] * error
    if o.bound is None and o.decoder_sigma is None and o.of_eps:
        return Loss(weighted, error.detach())
    x0_hat, log_sigma2 = d.x0_hat(at, xt, predicted), d.log_variance(t, extra)
    if o.bound is not None and log_sigma2 is not None:
        held = x0_hat.detach() if o.bound.detach_mean else x0_hat
        weighted = weighted + o.bound.share * bound_term(o.bound, x0, held, t, log_sigma2, o.levels)
    elif o.decoder_sigma is not None:
        first = t == 0
        # Elsewhere the decoder sees its own target, so that no gradient of a term that is dropped can overflow.
        mean = torch.where(gather(first, torch.arange(len(t), device=t.device), x0), x0_hat, x0)
        nll = decoder_nll(x0, mean, o.decoder_sigma, o.levels).flatten(1).mean(1)
        weighted = torch.where(first, nll, weighted)
    return Loss(weighted, error.detach() if o.of_eps else _eps_mse(at, x0_hat, x0))


def bound_term(b: BoundTerm, x0: Tensor, x0_hat: Tensor, t: Tensor, log_sigma2: Tensor, levels: int) -> Tensor:
    """Return L_{t-1} of a learned sigma, and L_0 at t=1, in nats per dimension, (B,).

    At t=1 it is the decoder's NLL with the network's sigma, Ho et al. 2020, eq. 13.
    """
    middle = middle_kl(gather(b.log_tilde, t, x0), gather(b.c2, t, x0), x0, x0_hat, log_sigma2)
    first = gather(t == 0, torch.arange(len(t), device=t.device), x0)
    # Elsewhere the decoder sees its own target at sigma 1, so that no gradient of a dropped term can overflow.
    mean = torch.where(first, x0_hat, x0)
    sigma = torch.exp(torch.where(first, log_sigma2, torch.zeros_like(log_sigma2)) / 2)
    return torch.where(first, decoder_nll(x0, mean, sigma, levels), middle).flatten(1).mean(1)


@torch.no_grad()
def _eps_mse(at: Factors, x0_hat: Tensor, x0: Tensor) -> Tensor:
    """Return the mean squared eps-error of each image, (B,), whatever the network predicts."""
    ratio = at.signal / at.noise
    return (ratio * (x0_hat - x0)).square().flatten(1).mean(1)
