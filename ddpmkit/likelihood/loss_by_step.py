"""The squared error of a network by step, out of the draws of its bound: no network, no sigma, no decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood.control_variates import coefficients
from ddpmkit.likelihood.draws import Draws, Plain, Sampled, Swept, blocks
from ddpmkit.likelihood.evidence import step_variance


@dataclass(frozen=True, eq=False)
class LossByStep:
    """Mean squared eps-error per dimension, block by block of steps; (blocks,) each, t=1 first.

    Within a block SNR, and the loss at much noise with it, may run over orders: a loss stands at the mean SNR of what
    was drawn, with the same weights, so that it lies on the curve whichever steps were drawn.

    Attributes:
        log_snr: log of the mean SNR of the block's draws; NaN for a block that fewer than two fell into.
        eps_loss: E ||eps - epshat||^2 / d there, SNR times the x0-loss; NaN likewise.
        standard_error: its Monte-Carlo error.
    """

    log_snr: Array
    eps_loss: Array
    standard_error: Array


def loss_by_step(draws: Draws, tables: Tables, *, clip: bool = True) -> LossByStep:
    """Return the eps-loss of the images that were drawn, SNR_t ||x0 - x0hat||^2 / d, block by block.

    Args:
        draws: From :func:`ddpmkit.likelihood.ask.draw`, over the same tables.
        tables: The chain.
        clip: Whether x0hat is clipped to [-1, 1].

    Raises:
        DdpmkitError: when the draws are of another chain.
    """
    if draws.T != tables.T:
        raise DdpmkitError(f"the draws are of a chain of {draws.T} steps, the tables of one of {tables.T}")
    block = blocks(tables.T)
    middle = _sampled if isinstance(draws.middle, Sampled) else _swept
    snr, error, spread = middle(draws.middle, tables.snr, block, clip)  # type: ignore[arg-type]
    hat = draws.decoder_mean.clip(-1, 1) if clip else draws.decoder_mean
    # The draws of one image go together: the spread is that of the images.
    first = np.square(hat.astype(np.float64) - draws.x0).sum(2).mean(0)
    snr[0], error[0] = tables.snr[0], first.mean()
    spread[0] = first.std(ddof=1) / math.sqrt(len(first)) if len(first) > 1 else math.nan
    with np.errstate(divide="ignore"):
        return LossByStep(np.log(snr), snr * error / draws.dims, snr * spread / draws.dims)


def _sampled(s: Sampled, snr: Array, block: Plain, clip: bool) -> tuple[Array, Array, Array]:
    """Each block's mean SNR, its x0-error weighted by SNR and the error of that, from draws by importance.

    With the bound's control variates. A ratio of sums over the draws, its error from the spread of the replicates.
    """
    adjust = coefficients(s.pilot_t, s.pilot_errors.of(clip), s.pilot_controls, s.scales)[s.t] * s.controls
    x, where, count = s.errors.of(clip) - adjust.sum(1), block[s.t], int(block.max()) + 1
    even = 1 / s.proposal[s.t]
    weight = even * snr[s.t]
    drawn = np.bincount(where, minlength=count) > 1
    total = np.where(drawn, np.bincount(where, weight, minlength=count), np.nan)
    mean = np.bincount(where, weight * x, minlength=count) / total
    replicate = np.repeat(np.arange(s.replicates), len(x) // s.replicates)
    left = np.bincount(replicate * count + where, weight * (x - mean[where]), minlength=s.replicates * count)
    spread = left.reshape(s.replicates, count).std(0, ddof=1) * math.sqrt(s.replicates) / total
    return total / np.maximum(np.bincount(where, even, minlength=count), 1e-300), mean, spread


def _swept(s: Swept, snr: Array, block: Plain, clip: bool) -> tuple[Array, Array, Array]:
    """The same from a full sweep."""
    m = s.clipped if clip else s.unclipped
    weights, n = np.r_[0.0, snr[1:]], len(m.image)
    total, count = (np.bincount(block, w, minlength=int(block.max()) + 1) for w in (weights, np.ones(len(snr))))
    with np.errstate(divide="ignore", invalid="ignore"):  # of t=1, which is drawn by itself, and steps without signal
        mean = np.bincount(block, weights * m.total / n) / total
        spread = np.sqrt(np.bincount(block, weights**2 * step_variance(m, n) / n)) / total
    return total / count, mean, spread
