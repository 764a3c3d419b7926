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

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Schedule, Sigma, Weighting

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
    """Build the tables of a schedule with T steps, and refuse a schedule that breaks the rules.

    Raises:
        DdpmkitError: when T < 2, or the schedule gives a wrong shape, or values that are not finite or out of range.
    """
    if T < 2:
        raise DdpmkitError(f"T must be at least 2, got {T}", "use --timesteps 1000")
    a, b2 = (np.asarray(x, dtype=np.float64) for x in schedule.steps(T))
    problem = ""
    if a.shape != (T,) or b2.shape != (T,):
        problem = f"it gives arrays of shape {a.shape} and {b2.shape} instead of ({T},)"
    elif not (np.isfinite(a).all() and np.isfinite(b2).all()):
        problem = "it gives values that are not finite"
    elif (b2 <= 0).any() or (a < 0).any():
        problem = f"step {int(np.argmax((b2 <= 0) | (a < 0)))} adds no noise or flips the sign"
    elif ((a == 0) & (b2 > 1)).any() or (_preserving(a, b2) and (b2[:-1] >= 1).any()):
        problem = f"beta at step {int(np.argmax(b2 >= 1))} is {b2.max():g}, and only the last may reach 1"
    if problem:
        raise DdpmkitError(f"schedule '{schedule.name}' at T={T}: {problem}", f"ddpmkit show {schedule.name}")
    preserving = _preserving(a, b2)
    if preserving:
        # A product of a thousand factors near 1 keeps its last digits as a sum of log1p; 1 - alpha-bar as expm1.
        with np.errstate(divide="ignore"):  # a last beta of exactly 1 leaves alpha-bar = 0
            log_alpha_bar = np.cumsum(np.log1p(-b2))
        signal, noise2 = np.exp(log_alpha_bar / 2), -np.expm1(log_alpha_bar)
    else:
        signal, noise2 = np.cumprod(a), np.empty(T)
        variance = 0.0
        for t in range(T):
            variance = a[t] ** 2 * variance + b2[t]
            noise2[t] = variance
    before, noise2_before = np.concatenate([[1.0], signal[:-1]]), np.concatenate([[0.0], noise2[:-1]])
    return Tables(
        a=a,
        b2=b2,
        signal=signal,
        noise2=noise2,
        prior_variance=float(schedule.prior_variance(T)),
        variance_preserving=preserving,
        mean_x0=before * b2 / noise2,
        mean_xt=a * noise2_before / noise2,
        times=np.arange(T, dtype=np.int64),
        full_T=T,
    )


def log_bounds(sigma: Sigma, tables: Tables) -> tuple[Array, Array]:
    """Return a sigma's (low, high) log-variances, each float64 (T,).

    Raises:
        DdpmkitError: when the sigma gives other shapes or infinite values.
    """
    low, high = (np.asarray(x, dtype=np.float64) for x in sigma.log_bounds(tables))
    if low.shape != (tables.T,) or high.shape != (tables.T,):
        raise DdpmkitError(f"sigma '{sigma.name}' gives shapes {low.shape} and {high.shape}, not ({tables.T},)")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise DdpmkitError(f"sigma '{sigma.name}' gives log-variances that are not finite")
    return low, high


def fixed_log_variance(sigma: Sigma, tables: Tables) -> Array:
    """Return log sigma_t^2, (T,), of a sigma whose bounds coincide.

    Raises:
        DdpmkitError: when the sigma gives other shapes, infinite values, or a range.
    """
    low, high = log_bounds(sigma, tables)
    if not np.array_equal(low, high):
        raise DdpmkitError(
            f"sigma '{sigma.name}' gives a range of variances, and is neither learned nor fitted",
            "a sigma whose bounds differ says learned = True or fitted = True",
        )
    return low


def checked_weights(weighting: Weighting, tables: Tables, log_sigma2: Array) -> Array:
    """Return a weighting's factors on the x0-error, float64 (T,).

    Raises:
        DdpmkitError: when it gives a wrong shape, negative or infinite weights, or only zeros.
    """
    weights = np.asarray(weighting.weights(tables, log_sigma2), dtype=np.float64)
    if weights.shape != (tables.T,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise DdpmkitError(
            f"weighting '{weighting.name}' must give {tables.T} finite weights of at least 0", "ddpmkit ls weighting"
        )
    if not weights.any():
        raise DdpmkitError(f"weighting '{weighting.name}' gives only zeros", "ddpmkit ls weighting")
    return weights


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
