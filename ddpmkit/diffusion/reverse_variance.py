"""The reverse variance: fixed by the tables, fitted to a trained network, or given by the network pixel by pixel.

A fitted one is lambda_t^2 + kappa_t^2 Var(x_0 | x_t): what the step would have if x0 were known, plus what not knowing
it costs (Bao et al. 2022, arXiv 2201.06503, theorem 1). A learned one lies between, or beyond, two bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.gaussian import gather
from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.contract import (
    fixed_log_variance,
    kernel,
    largest_last_variance,
    log_bounds,
    network_log_variance,
    x0_variance,
)

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Sampler, Sigma


def log_variance(
    sigma: Sigma, tables: Tables, statistics: Mapping[str, Array] | None = None, full: Tables | None = None
) -> Array:
    """Return log sigma_t^2, (T,), of a fixed or a fitted sigma, as the likelihood of a chain wants it.

    A fitted one is beta-tilde_t + c_t^2 Var(x_0 | x_t); entry 0 is the decoder's, as in ``beta-tilde``. Of a
    strided chain, ``full`` is the one that the statistics are of: Var(x_0 | x_t) does not depend on the steps between.

    Raises:
        DdpmkitError: for a learned sigma, whose variance is the network's; when a fitted one lacks its statistics.
    """
    if not sigma.fitted:
        return fixed_log_variance(sigma, tables)
    if statistics is None:
        raise DdpmkitError(f"sigma '{sigma.name}' is fitted to a trained network, and there is none", "train one first")
    x0 = x0_variance(sigma, tables, statistics) if full is None else x0_variance(sigma, full, statistics)[tables.times]
    variance = tables.posterior_variance + tables.posterior_x0**2 * x0
    variance[0] = tables.posterior_variance[1] if tables.T > 1 else tables.b2[0]
    return np.asarray(np.log(variance))


def step_sigmas(
    sampler: Sampler, sigma: Sigma, full: Tables, chain: Tables, levels: int, statistics: Mapping[str, Array] | None
) -> Array | None:
    """Return sigma_t, the standard deviation of the noise in each step of a walk, float64 (K,); None where learned.

    ``sampling.with_sigma`` hands it to the sampler. A fixed one is exp(log sigma_t^2 / 2) of ``builtin/sigmas/``; a
    learned one is the network's, pixel by pixel.

    ``chain`` is ``full.strided(...)`` over the walk's steps. A sampler that does not use the sigma axis has its own.
    """
    variance, factor = kernel(sampler, chain)
    if sigma.fitted and factor.any():
        if statistics is None:
            raise DdpmkitError(f"sigma '{sigma.name}' is fitted to a trained network, and there is none", "train one")
        variance = variance + factor**2 * x0_variance(sigma, full, statistics)[chain.times]
        # The last noisy step, p(x_1 | x_2) of the walk: what it adds beyond a grey level is seen as noise.
        variance[1:2] = np.minimum(variance[1:2], largest_last_variance(sigma, levels))
        return np.asarray(np.sqrt(variance))
    if not sampler.uses_sigma or sigma.fitted:
        return np.asarray(np.sqrt(variance))
    if sigma.learned:
        return None
    return np.asarray(np.exp(fixed_log_variance(sigma, chain) / 2))


class LearnedVariance:
    """A learned sigma's log-variance on a device: its bounds, gathered by t, and the network's second output."""

    def __init__(self, sigma: Sigma, tables: Tables, device: torch.device) -> None:
        low, high = log_bounds(sigma, tables)
        self.sigma = sigma
        self.low, self.high = (torch.from_numpy(v).float().to(device) for v in (low, high))

    def __call__(self, t: Tensor, out: Tensor) -> Tensor:
        """Return log sigma^2 like ``out`` (B, C, H, W) at steps t, int64 (B,)."""
        return network_log_variance(self.sigma, gather(self.low, t, out), gather(self.high, t, out), out)
