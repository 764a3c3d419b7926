"""A chain against t, to be looked at: the signal left, the reverse variances, the weights on the eps-error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ddpmkit.diffusion.tables_for import Array, Tables, checked_weights, log_bounds

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Sigma, Weighting


@dataclass(frozen=True)
class ScheduleCurves:
    """The curves of one schedule, each (T,).

    Attributes:
        t: the step over T, in (0, 1].
        alpha_bars: what is left of the signal's power.
        log_snr: log of the signal-to-noise ratio; minus infinity where no signal is left.
        variances: sigma -> the ends of sigma_t^2; equal where it is fixed.
        eps_weights: weighting -> the factor on the squared eps-error, at the first sigma.
    """

    t: Array
    alpha_bars: Array
    log_snr: Array
    variances: dict[str, tuple[Array, Array]]
    eps_weights: dict[str, Array]


def curves(tables: Tables, sigmas: Mapping[str, Sigma], weightings: Mapping[str, Weighting]) -> ScheduleCurves:
    """Return the curves of a chain.

    Args:
        tables: The chain.
        sigmas: Label -> reverse variance, at least one.
        weightings: Label -> weighting.
    """
    bounds = {label: log_bounds(sigma, tables) for label, sigma in sigmas.items()}
    log_sigma2 = next(iter(bounds.values()))[1]
    with np.errstate(divide="ignore"):
        log_snr = np.log(tables.snr)
    return ScheduleCurves(
        (np.arange(tables.T) + 1) / tables.T,
        tables.alpha_bars,
        log_snr,
        {label: (np.exp(low), np.exp(high)) for label, (low, high) in bounds.items()},
        {label: eps_weights(weighting, tables, log_sigma2) for label, weighting in weightings.items()},
    )


def eps_weights(weighting: Weighting, tables: Tables, log_sigma2: Array) -> Array:
    """Return the factor on the squared eps-error, (T,); NaN where the chain has no signal and it is not defined."""
    x0_weights = checked_weights(weighting, tables, log_sigma2)
    if weighting.space == "prediction":
        return x0_weights
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(tables.snr > 0, x0_weights / tables.snr, np.nan)
