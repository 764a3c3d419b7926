"""The terms of the variational bound, in nats per image or per dimension as each says; bits only at the very end.

NLL <= L_T + sum_{t=2..T} L_{t-1} + L_0 (Ho et al. 2020, eq. 5). With x on K levels, x = -1 + 2 k / (K - 1).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.tables import Array, Tables


def bits_per_dim(nats: float, dims: int) -> float:
    """Return nats / (dims ln 2)."""
    return nats / (dims * math.log(2))


def prior_kl(tables: Tables, x0: Tensor) -> Tensor:
    """L_T = KL(q(x_T | x_0) || p(x_T)), nats per image, float64 (B,). Ho et al. 2020, eq. 5.

    Per dimension 1/2 [ (m_T^2 x0^2 + S_T^2) / P - 1 - ln(S_T^2 / P) ], P the prior's variance.
    """
    prior, noise2, signal = tables.prior_variance, float(tables.noise2[-1]), float(tables.signal[-1])
    x2 = x0.double().square().flatten(1).sum(1)
    per_dim = noise2 / prior - 1 - math.log(noise2 / prior)
    return 0.5 * (signal**2 * x2 / prior + x0[0].numel() * per_dim)


def middle_constant(tables: Tables, log_sigma2: Array) -> Array:
    """The part of L_{t-1} that no network changes, nats per dimension, float64 (T,); entry 0 is 0.

    1/2 [ beta-tilde_t / sigma_t^2 - 1 + ln(sigma_t^2 / beta-tilde_t) ].
    """
    out = np.zeros(tables.T)
    tilde, sigma2 = tables.posterior_variance[1:], np.exp(log_sigma2[1:])
    ratio = tilde / sigma2
    # 1/2 (r - 1 - ln r); where the two variances nearly agree it is off by about 1e-16, which no sum notices.
    out[1:] = 0.5 * (ratio - 1 - (np.log(tilde) - log_sigma2[1:]))
    return out


def middle_factor(tables: Tables, log_sigma2: Array) -> Array:
    """The factor c_t^2 / (2 sigma_t^2) on ||x0 - x0hat||^2 in L_{t-1}, nats, float64 (T,); entry 0 is 0.

    On the eps-error it is beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha-bar_t)), Ho et al. 2020, eq. 12.
    """
    out = tables.posterior_x0**2 / (2 * np.exp(log_sigma2))
    out[0] = 0.0
    return np.asarray(out)


def learned_middle(tables: Tables, x0: Tensor, x0_hat: Tensor, log_sigma2: Tensor, t: Tensor) -> Tensor:
    """L_{t-1} with a variance for each pixel, nats per image, float64 (B,); t int64 (B,) of at least 1.

    The sum over pixels of 1/2 [ beta-tilde_t / sigma^2 - 1 + ln(sigma^2 / beta-tilde_t) + c_t^2 (x0 - x0hat)^2 /
    sigma^2 ].
    """
    shape = (-1, *([1] * (x0.dim() - 1)))
    tilde, factor = (
        torch.from_numpy(v).to(x0.device)[t].reshape(shape) for v in (tables.posterior_variance, tables.posterior_x0**2)
    )
    inverse = torch.exp(-log_sigma2.double())
    per_pixel = (tilde + factor * (x0 - x0_hat).square()) * inverse - 1 + log_sigma2 - torch.log(tilde)
    return 0.5 * per_pixel.flatten(1).sum(1)


def log_ndtr_difference(upper: Tensor, lower: Tensor) -> Tensor:
    """Return ln(Phi(upper) - Phi(lower)), upper > lower, without cancellation in either tail.

    Both ends are reflected to the left tail, where ln Phi is exact, and subtracted in log space.
    """
    flip = (upper + lower) > 0
    high = torch.where(flip, -lower, upper)
    low = torch.where(flip, -upper, lower)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    out: Tensor = log_high + torch.log(-torch.expm1(torch.clamp(log_low - log_high, max=-1e-30)))
    return out


def decoder_nll(x0: Tensor, mean: Tensor, sigma: float | Tensor, levels: int) -> Tensor:
    """L_0 per pixel in nats: -ln of the mass of N(mean, sigma^2) in the bin of x0, the outer bins open.

    Ho et al. 2020, eq. 13, with the exact CDF in log space. Bins are x0 -+ h with h = 1/(K-1). Shapes alike.
    """
    half = 1.0 / (levels - 1)
    upper, lower = (x0 - mean + half) / sigma, (x0 - mean - half) / sigma
    inner = log_ndtr_difference(upper, lower)
    first, last = x0 < -1 + half, x0 > 1 - half
    return -torch.where(first, torch.special.log_ndtr(upper), torch.where(last, torch.special.log_ndtr(-lower), inner))


def decoder_density_nll(x0: Tensor, mean: Tensor, sigma: float) -> Tensor:
    """L_0 per pixel in nats for a continuous decoder, the density of N(mean, sigma^2) at x0. A density, not a mass."""
    return 0.5 * ((x0 - mean) / sigma).square() + math.log(sigma) + 0.5 * math.log(2 * math.pi)
