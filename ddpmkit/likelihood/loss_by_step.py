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
    """Mean squared eps-error per dimension, averaged over blocks of steps; (blocks,) each, t=1 first.

    Attributes:
        block: the block of each step, int64 (T,).
        log_snr: log of the mean SNR of the block's steps, to which a loss at much noise is in proportion; minus infinity
            where none has signal.
        eps_loss: mean over the steps of E ||eps - epshat||^2 / d; NaN for a block that no draw fell into.
        standard_error: its Monte-Carlo error.
    """

    block: Plain
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
    factor, block = tables.snr / draws.dims, blocks(tables.T)
    if isinstance(draws.middle, Sampled):
        sums, errors = _sampled(draws.middle, factor, block, clip)
    else:
        sums, errors = _swept(draws.middle, factor, block, clip)
    hat = draws.decoder_mean.clip(-1, 1) if clip else draws.decoder_mean
    # The draws of one image go together: the spread is that of the images.
    first = factor[0] * np.square(hat.astype(np.float64) - draws.x0).sum(2).mean(0)
    sums[0] = first.mean()
    errors[0] = first.std(ddof=1) / math.sqrt(len(first)) if len(first) > 1 else math.nan
    count = np.bincount(block)
    with np.errstate(divide="ignore"):
        log_snr = np.log(np.bincount(block, tables.snr) / count)
    return LossByStep(block, log_snr, sums / count, errors / count)


def _sampled(s: Sampled, factor: Array, block: Plain, clip: bool) -> tuple[Array, Array]:
    """The sum over each block and its error, from draws by importance with the bound's control variates."""
    adjust = coefficients(s.pilot_t, s.pilot_errors.of(clip), s.pilot_controls, s.scales)[s.t] * s.controls
    z = factor[s.t] * (s.errors.of(clip) - adjust.sum(1)) / s.proposal[s.t]
    size, count = len(z) // s.replicates, int(block.max()) + 1
    where = np.repeat(np.arange(s.replicates), size) * count + block[s.t]
    sums = np.bincount(where, z, minlength=s.replicates * count).reshape(s.replicates, -1) / size
    mean, error = sums.mean(0), sums.std(0, ddof=1) / math.sqrt(s.replicates)
    empty = np.bincount(block[s.t], minlength=count) == 0
    mean[empty], error[empty] = np.nan, np.nan
    return mean, error


def _swept(s: Swept, factor: Array, block: Plain, clip: bool) -> tuple[Array, Array]:
    """The same from a full sweep."""
    m = s.clipped if clip else s.unclipped
    weights, n = factor.copy(), len(m.image)
    weights[0] = 0.0
    sums = np.bincount(block, weights * m.total / n, minlength=int(block.max()) + 1)
    noise = np.bincount(block, weights**2 * step_variance(m, n) / n, minlength=len(sums))
    return sums, np.sqrt(noise)
