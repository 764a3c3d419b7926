"""The variational bound and its terms, in nats per image or per dimension as each says; bits only at the very end.

NLL <= L_T + sum_{t=2..T} L_{t-1} + L_0 (Ho et al. 2020, eq. 5). With x on K levels, x = -1 + 2 k / (K - 1).
:func:`bound_by_every_step` at the end is that sum as it is written; studies take the same one from fewer evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.gaussian import Coefficients, q_sample
from ddpmkit.diffusion.prior_term import bits_per_dim as bits_per_dim
from ddpmkit.diffusion.prior_term import kl, prior_nats
from ddpmkit.diffusion.prior_term import prior_bits as prior_bits
from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.errors import DdpmkitError, check_choice
from ddpmkit.randomness import normal, stream_key

Decoder = Literal["cdf", "continuous", "cdf-tanh", "softmax"]


def prior_kl(tables: Tables, x0: Tensor) -> Tensor:
    """L_T = KL(q(x_T | x_0) || p(x_T)), nats per image, float64 (B,). Ho et al. 2020, eq. 5."""
    return prior_nats(tables, x0.double().square().flatten(1).sum(1), x0[0].numel())


def middle_constant(tables: Tables, log_sigma2: Array) -> Array:
    """The part of L_{t-1} that no network changes, nats per dimension, float64 (T,); entry 0 is 0.

    1/2 [ beta-tilde_t / sigma_t^2 - 1 + ln(sigma_t^2 / beta-tilde_t) ].
    """
    out = np.zeros(tables.T)
    tilde, sigma2 = tables.posterior_variance[1:], np.exp(log_sigma2[1:])
    ratio = tilde / sigma2
    # 1/2 (r - 1 - ln r); where the two variances nearly agree it is off by about 1e-16, which no sum notices.
    out[1:] = kl(ratio, np.log(tilde) - log_sigma2[1:])
    return out


def middle_factor(tables: Tables, log_sigma2: Array) -> Array:
    """The factor c_t^2 / (2 sigma_t^2) on ||x0 - x0hat||^2 in L_{t-1}, nats, float64 (T,); entry 0 is 0."""
    out = tables.bound_factor(log_sigma2)
    out[0] = 0.0
    return out


def middle_kl(log_tilde: Tensor, c2: Tensor, x0: Tensor, x0_hat: Tensor, log_sigma2: Tensor) -> Tensor:
    """L_{t-1} per pixel in nats, from ln beta-tilde_t and c_t^2: the KL of the posterior from the step back.

    1/2 [ beta-tilde_t / s - 1 - ln(beta-tilde_t / s) + c_t^2 (x0 - x0hat)^2 / s ], s = sigma^2, since both means have
    the same k_t x_t (Ho et al. 2020, eq. 5 and 7). Shapes that broadcast.
    """
    ratio = torch.exp(log_tilde - log_sigma2)
    squared = c2 * (x0 - x0_hat).square() * torch.exp(-log_sigma2)
    return kl(ratio, log_tilde - log_sigma2, squared)


def middle_terms(tables: Tables, t: Tensor, x0: Tensor, x0_hat: Tensor, log_sigma2: Tensor) -> Tensor:
    """L_{t-1} in nats per image, float64 (B,), where the reverse variance is one a pixel, as when it is learned.

    The sum of :func:`middle_kl` over the pixels. t int64 (B,), each at least 1; the rest (B, ...).
    """
    around = (-1, *([1] * (x0.dim() - 1)))
    tilde, c = (
        torch.from_numpy(v).to(x0.device)[t].reshape(around) for v in (tables.posterior_variance, tables.posterior_x0)
    )
    each = middle_kl(tilde.log(), c.square(), x0.double(), x0_hat.double(), log_sigma2.double())
    return each.flatten(1).sum(1)


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

    Ho et al. 2020, eq. 13, with the exact CDF in log space. Bins are x0 -+ h with h = 1/(K-1). Shapes alike; sigma is
    one number, or one a pixel.
    """
    half = 1.0 / (levels - 1)
    upper, lower = (x0 - mean + half) / sigma, (x0 - mean - half) / sigma
    inner = log_ndtr_difference(upper, lower)
    first, last = x0 < -1 + half, x0 > 1 - half
    return -torch.where(first, torch.special.log_ndtr(upper), torch.where(last, torch.special.log_ndtr(-lower), inner))


def decoder_density_nll(x0: Tensor, mean: Tensor, sigma: float | Tensor) -> Tensor:
    """L_0 per pixel in nats for a continuous decoder, the density of N(mean, sigma^2) at x0. A density, not a mass."""
    log_sigma = sigma.log() if isinstance(sigma, Tensor) else math.log(sigma)
    return 0.5 * ((x0 - mean) / sigma).square() + log_sigma + 0.5 * math.log(2 * math.pi)


def decoder_tanh_nll(x0: Tensor, mean: Tensor, sigma: float | Tensor, levels: int) -> Tensor:
    """L_0 per pixel in nats as improved-diffusion computes it, to match published numbers.

    The CDF is 1/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))), up to 1.8e-4 off, and no mass counts as less than 1e-12:
    a pixel never costs more than 39.86 bits. Nichol & Dhariwal 2021, the code of losses.py.
    """
    half = 1.0 / (levels - 1)

    def cdf(z: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    upper, lower = cdf((x0 - mean + half) / sigma), cdf((x0 - mean - half) / sigma)
    mass = torch.where(x0 < -1 + half, upper, torch.where(x0 > 1 - half, 1 - lower, upper - lower))
    return -mass.clamp(min=1e-12).log()


def decoder_softmax_nll(x0: Tensor, mean: Tensor, sigma: float | Tensor, levels: int) -> Tensor:
    """L_0 per pixel in nats of a softmax over the K grey levels g of -(mean - g)^2 / (2 sigma^2).

    Kingma et al. 2021 (arXiv 2107.00630), eq. 30 of appendix C, on this package's grey levels.
    """
    out = torch.full_like(mean, -math.inf)
    for k in range(levels):  # one level at a time: K pixels for each would be K times the memory
        out = torch.logaddexp(out, -0.5 * ((mean - (-1 + 2 * k / (levels - 1))) / sigma).square())
    return out + 0.5 * ((mean - x0) / sigma).square()


def checked_decoder(decoder: str) -> None:
    """Refuse a decoder that is none.

    Raises:
        DdpmkitError: with the names that there are.
    """
    check_choice("decoder", decoder, get_args(Decoder))


def decoder_terms(decoder: Decoder, x0: Tensor, mean: Tensor, log_variance: float | Tensor, levels: int) -> Tensor:
    """L_0 per pixel in nats under the decoder of that name; they are not to be compared with each other.

    ``cdf`` is the mass of the pixel's bin, exact; ``cdf-tanh`` the same as published code has it, with its clamp;
    ``softmax`` that of Kingma et al.; ``continuous`` a density, which has no bins at all.

    Raises:
        DdpmkitError: for another name.
    """
    checked_decoder(decoder)
    sigma = (log_variance / 2).exp() if isinstance(log_variance, Tensor) else math.exp(log_variance / 2)
    if decoder == "continuous":
        return decoder_density_nll(x0, mean, sigma)
    masses = {"cdf": decoder_nll, "cdf-tanh": decoder_tanh_nll, "softmax": decoder_softmax_nll}
    return masses[decoder](x0, mean, sigma, levels)


def bound_by_every_step(
    predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]],
    tables: Tables,
    x0: Tensor,
    log_sigma2: Array | None = None,
    decoder_log_variance: float | None = None,
    decoder: Decoder = "cdf",
    *,
    levels: int,
    clip: bool = False,
    seed: int | str = 0,
) -> Tensor:
    """L_T + sum_{t=2..T} L_{t-1} + L_0 of each image in nats, float64 (B,), as Ho et al. 2020 write it in eq. 5.

    Every step, with one noise draw of its own; :func:`ddpmkit.likelihood.bound` finds the same from fewer evaluations,
    or from as many, with the same noise, after ``draw(full=True, decoder_draws=1)`` of 16 images and more.

    Args:
        predict: ``predict(xt, t) -> (x0hat, log sigma^2)``, x0hat not clipped, the second None unless it is learned.
        tables: The chain; strided or full.
        x0: Pixels (B, ...) in [-1, 1], on the grey levels unless the decoder is continuous.
        log_sigma2: Log-variances of a fixed sigma, (T,), entry 0 unused; None takes the network's own.
        decoder_log_variance: Log-variance of p(x_0 | x_1); None takes the network's own.
        decoder: What stands for p(x_0 | x_1).
        levels: Number K of grey levels.
        clip: Whether x0hat is clipped to [-1, 1].
        seed: Key of the noise.

    Raises:
        DdpmkitError: for a variance that is neither given nor the network's.
    """
    c, index = Coefficients.of(tables, x0.device), torch.arange(len(x0), device=x0.device)
    # Each may be fixed by itself: a fixed sigma whose decoder is the network's, or the other way round.
    fixed = [None] * tables.T if log_sigma2 is None else log_sigma2.tolist()
    fixed[0] = decoder_log_variance
    nats = prior_kl(tables, x0)  # L_T
    for t in range(tables.T - 1, -1, -1):
        steps = torch.full_like(index, t)
        eps = normal(stream_key(seed, "nll-full" if t > 0 else "nll-full-decoder"), index, tuple(x0.shape[1:]), t)
        x0_hat, own = predict(q_sample(c, x0, steps, eps), steps)
        x0_hat = x0_hat.double().clamp(-1, 1) if clip else x0_hat.double()
        given = fixed[t]
        log_s = own if given is None else torch.full_like(x0_hat, given)
        if log_s is None:
            missing = "log_sigma2" if t > 0 else "decoder_log_variance"
            raise DdpmkitError("the network gave no variances of its own", f"give {missing}")
        if t > 0:
            nats += middle_terms(tables, steps, x0, x0_hat, log_s)  # L_{t-1} of the papers, whose t is one more
        else:
            nats += decoder_terms(decoder, x0.double(), x0_hat, log_s.double(), levels).flatten(1).sum(1)  # L_0
    return nats
