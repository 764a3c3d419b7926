"""The tables of a schedule, built once, and the decoder's variance; beta-tilde and the like are in plugin/tables.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ddpmkit.errors import DdpmkitError, check_choice
from ddpmkit.plugin import contract

# The record, and what a sigma and a weighting hand in, checked where it enters; the maths reads them from here.
from ddpmkit.plugin.contract import checked_weights as checked_weights
from ddpmkit.plugin.contract import fixed_log_variance as fixed_log_variance
from ddpmkit.plugin.contract import log_bounds as log_bounds
from ddpmkit.plugin.tables import Array as Array
from ddpmkit.plugin.tables import Tables as Tables

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Schedule


def tables_for(schedule: Schedule, T: int) -> Tables:
    """Build the tables of a schedule with T steps.

    Raises:
        DdpmkitError: when T < 2, or the schedule breaks its contract, or its chain leaves the range of float64.
    """
    if T < 2:
        raise DdpmkitError(f"T must be at least 2, got {T}", "use --timesteps 1000")
    a, b2 = contract.steps(schedule, T)
    preserving = _preserving(a, b2)
    if preserving:
        # A product of a thousand factors near 1 keeps its last digits as a sum of log1p; 1 - alpha-bar as expm1.
        with np.errstate(divide="ignore"):  # a last beta of exactly 1 leaves alpha-bar = 0
            log_alpha_bar = np.cumsum(np.log1p(-b2))
        signal, noise2 = np.exp(log_alpha_bar / 2), -np.expm1(log_alpha_bar)
    else:
        variance, noise2 = 0.0, np.empty(T)
        with np.errstate(over="ignore", invalid="ignore"):
            signal = np.cumprod(a)
            for t in range(T):
                variance = a[t] ** 2 * variance + b2[t]
                noise2[t] = variance
    if not (np.isfinite(signal).all() and np.isfinite(noise2).all()):
        t = int(np.argmax(~(np.isfinite(signal) & np.isfinite(noise2))))
        raise DdpmkitError(
            f"schedule '{schedule.name}' at T={T}: its chain leaves the range of float64 at step {t}",
            f"ddpmkit show {schedule.name}",
        )
    before, noise2_before = np.concatenate([[1.0], signal[:-1]]), np.concatenate([[0.0], noise2[:-1]])
    return Tables(
        a=a,
        b2=b2,
        signal=signal,
        noise2=noise2,
        prior_variance=contract.prior_variance(schedule, T),
        variance_preserving=preserving,
        full_posterior_x0=before * b2 / noise2,
        full_posterior_xt=a * noise2_before / noise2,
        times=np.arange(T, dtype=np.int64),
        full_T=T,
    )


def decoder_log_variance(tables: Tables, choice: str = "tilde2") -> float:
    """Return the log-variance of the decoder p(x_0 | x_1): ``tilde2`` (beta-tilde_2, as OpenAI and Ho) or ``beta1``.

    beta-tilde_1 is zero, which no likelihood survives; which value takes its place is a choice, and it is named.

    Raises:
        DdpmkitError: for another name, and for beta-tilde_2 of a chain of one step.
    """
    check_choice("decoder_variance", choice, ("tilde2", "beta1"))
    if choice == "beta1":
        return float(np.log(tables.b2[0]))
    if tables.T < 2:
        raise DdpmkitError(
            "a chain of one step has no beta-tilde_2 to be the decoder's variance",
            'decoder_variance="beta1", or a number where one is taken',
        )
    return float(np.log(tables.posterior_variance[1]))


def _preserving(a: Array, b2: Array) -> bool:
    return bool(np.allclose(a**2 + b2, 1.0, rtol=0, atol=1e-12))
