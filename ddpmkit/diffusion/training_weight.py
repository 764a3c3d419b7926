"""The weight over log-SNR that a training really has: how often it sees a noise level, times what it counts there.

A loss E_t w_t ||eps - epshat||^2 with t even over the steps is, over lambda = log SNR,

    integral of p(lambda) w(lambda) E ||eps - epshat||^2 d lambda,    p(lambda) = 1 / (T |d lambda / dt|),

so a schedule changes the loss only by p, as a weighting does by w. Kingma & Gao 2023 (arXiv 2303.00848), section 2. The
bound in full has the same weight everywhere; importance sampling of steps changes none of it.
"""

from __future__ import annotations

import numpy as np

from ddpmkit.diffusion.curves import eps_weights
from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.contract import divisor
from ddpmkit.plugin.interfaces import Prediction, Weighting


def training_weight(
    tables: Tables, weighting: Weighting, prediction: Prediction, log_sigma2: Array
) -> tuple[Array, Array]:
    """Return log SNR and the normalised weight on the squared eps-error there, float64 (n,), log SNR falling.

    The weight is a density over log SNR: times the widths of :func:`widths` it sums to 1. Steps without signal are left
    out, since they have no log SNR.

    Args:
        tables: The chain, at least two steps of it with signal.
        weighting: What counts how much.
        prediction: What the network is asked for; of weight only where the weighting is one of the prediction's error.
        log_sigma2: Log-variances that enter the training, the decoder's in entry 0, (T,).

    Raises:
        DdpmkitError: for a weighting that breaks its contract, or one that weighs only steps without signal.
    """
    signal = tables.snr > 0
    weights = eps_weights(weighting, tables, log_sigma2)
    if weighting.space == "prediction":
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = weights * divisor(prediction, tables) / tables.snr
    log_snr, weights = np.log(tables.snr[signal]), weights[signal]
    if len(log_snr) < 2 or not weights.sum() > 0:
        raise DdpmkitError(f"weighting '{weighting.name}' has no weight where there is signal", "another --weighting")
    return log_snr, weights / weights.sum() / widths(log_snr)


def widths(log_snr: Array) -> Array:
    """Return the width in log SNR that each step stands for, (n,): half the way to either neighbour."""
    return np.abs(np.gradient(log_snr))
