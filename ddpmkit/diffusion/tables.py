"""Everything about the chain that depends on t alone, in float64, built once.

The chain is x_t = a_t x_{t-1} + b_t eps. For a variance-preserving one a_t^2 = 1 - beta_t and b_t^2 = beta_t.
Index 0 is the papers' step t=1; index T-1 is their step T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract

# What a sigma and a weighting hand in, checked where it enters; the maths reads it from here.
from ddpmkit.plugin.contract import checked_weights as checked_weights
from ddpmkit.plugin.contract import fixed_log_variance as fixed_log_variance
from ddpmkit.plugin.contract import log_bounds as log_bounds

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Schedule

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Tables:
    """The float64 tables of one chain, each of shape (T,).

    Attributes:
        a: a_t, the factor on x_{t-1}; sqrt(alpha_t) when variance-preserving.
        b2: b_t^2, the variance that step t adds; beta_t when variance-preserving.
        signal: the factor m_t on x0 in q(x_t | x_0) = N(m_t x0, S_t^2); sqrt(alpha-bar_t) when variance-preserving.
        noise2: S_t^2 = Var(x_t | x_0); 1 - alpha-bar_t when variance-preserving.
        prior_variance: the variance of p(x_T), per dimension.
        mean_x0: the factor on x0 in the posterior mean of a full step; what mu-prediction inverts.
        mean_xt: the factor on x_t there.
        times: the step index in the full chain that each entry stands for; arange(T) unless strided.
        full_T: the length of the full chain, by which the network's time is normalised.
    """

    a: Array
    b2: Array
    signal: Array
    noise2: Array
    prior_variance: float
    variance_preserving: bool
    mean_x0: Array
    mean_xt: Array
    times: np.ndarray[Any, np.dtype[np.int64]]
    full_T: int

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.a)

    @property
    def betas(self) -> Array:
        """beta_t of a variance-preserving chain."""
        return self.b2

    @property
    def alpha_bars(self) -> Array:
        """alpha-bar_t = prod (1 - beta_s) = m_t^2."""
        return np.asarray(self.signal**2)

    @property
    def snr(self) -> Array:
        """SNR_t = m_t^2 / S_t^2."""
        return np.asarray(self.signal**2 / self.noise2)

    @property
    def signal_before(self) -> Array:
        """m_{t-1}, with m_0 = 1."""
        return np.concatenate([[1.0], self.signal[:-1]])

    @property
    def noise2_before(self) -> Array:
        """S_{t-1}^2, with S_0^2 = 0."""
        return np.concatenate([[0.0], self.noise2[:-1]])

    @property
    def posterior_variance(self) -> Array:
        """Var q(x_{t-1} | x_t, x_0) = b_t^2 S_{t-1}^2 / S_t^2: beta-tilde_t, Ho et al. 2020, eq. 7. Zero at t=1."""
        return np.asarray(self.b2 * self.noise2_before / self.noise2)

    @property
    def posterior_x0(self) -> Array:
        """The factor c_t on x0 in the posterior mean: m_{t-1} b_t^2 / S_t^2, Ho et al. 2020, eq. 7."""
        return np.asarray(self.signal_before * self.b2 / self.noise2)

    @property
    def posterior_xt(self) -> Array:
        """The factor on x_t in the posterior mean: a_t S_{t-1}^2 / S_t^2, Ho et al. 2020, eq. 7."""
        return np.asarray(self.a * self.noise2_before / self.noise2)

    @property
    def input_scale(self) -> Array:
        """What the network's input is multiplied by to have unit variance for unit data; 1 when variance-preserving."""
        if self.variance_preserving:
            return np.ones(self.T)
        return np.asarray(1 / np.sqrt(self.signal**2 + self.noise2))

    @property
    def network_time(self) -> Array:
        """1000 t / T in the full chain: what the network is told, so that T is an axis and not another embedding."""
        return np.asarray(1000.0 * self.times / self.full_T)

    def strided(self, times: Sequence[int]) -> Tables:
        """Return the chain that visits only ``times`` (rising indices), with the same marginals q(x_t | x_0).

        a_{t|s} = m_t / m_s and b^2_{t|s} = S_t^2 - a_{t|s}^2 S_s^2; Nichol & Dhariwal 2021, section 4.

        Raises:
            ValueError: when the indices do not rise or do not lie in the chain.
        """
        index = np.asarray(times, dtype=np.int64)
        if len(index) == 0 or index[0] < 0 or index[-1] >= self.T or np.any(np.diff(index) <= 0):
            raise ValueError(f"times must rise within 0 .. {self.T - 1}")
        if len(index) == self.T:
            return self
        signal, noise2 = self.signal[index], self.noise2[index]
        before, noise2_before = np.concatenate([[1.0], signal[:-1]]), np.concatenate([[0.0], noise2[:-1]])
        a = signal / before
        b2 = noise2 - a**2 * noise2_before
        return replace(
            self,
            a=a,
            b2=b2,
            signal=signal,
            noise2=noise2,
            mean_x0=self.mean_x0[index],
            mean_xt=self.mean_xt[index],
            times=self.times[index],
        )


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
        mean_x0=before * b2 / noise2,
        mean_xt=a * noise2_before / noise2,
        times=np.arange(T, dtype=np.int64),
        full_T=T,
    )


def prior_bits(tables: Tables, second_moment: float = 1.0) -> float:
    """Return L_T in bits/dim for data of that E x0^2: what is lost because the chain does not quite reach its prior.

    1/2 [ (m_T^2 E x0^2 + S_T^2) / P - 1 - ln(S_T^2 / P) ] / ln 2, P the prior's variance. Ho et al. 2020, eq. 5.
    """
    ratio = float(tables.noise2[-1]) / tables.prior_variance
    mean = float(tables.signal[-1]) ** 2 * second_moment / tables.prior_variance
    return 0.5 * (mean + ratio - 1 - math.log(ratio)) / math.log(2)


def decoder_log_variance(tables: Tables, choice: str = "tilde2") -> float:
    """Return the log-variance of the decoder p(x_0 | x_1): ``tilde2`` (beta-tilde_2, as OpenAI and Ho) or ``beta1``.

    beta-tilde_1 is zero, which no likelihood survives; which value takes its place is a choice, and it is named.
    """
    variance = {"tilde2": tables.posterior_variance[1], "beta1": tables.b2[0]}[choice]
    return float(np.log(variance))


def _preserving(a: Array, b2: Array) -> bool:
    return bool(np.allclose(a**2 + b2, 1.0, rtol=0, atol=1e-12))
