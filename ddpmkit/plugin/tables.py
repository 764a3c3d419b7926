"""The record of one chain: everything about it that depends on t alone, in float64.

The chain is x_t = a_t x_{t-1} + b_t eps. For a variance-preserving one a_t^2 = 1 - beta_t and b_t^2 = beta_t.
Index 0 is the papers' step t=1; index T-1 is their step T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

# Text, so that an annotation costs no import of numpy.
Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


@dataclass(frozen=True, eq=False)
class Tables:
    """The float64 tables of one chain, each of shape (T,).

    Attributes:
        a: a_t, the factor on x_{t-1}; sqrt(alpha_t) when variance-preserving.
        b2: b_t^2, the variance that step t adds; beta_t when variance-preserving.
        signal: the factor m_t on x0 in q(x_t | x_0) = N(m_t x0, S_t^2); sqrt(alpha-bar_t) when variance-preserving.
        noise2: S_t^2 = Var(x_t | x_0); 1 - alpha-bar_t when variance-preserving.
        prior_variance: the variance of p(x_T), per dimension.
        full_posterior_x0: the factor on x0 in the posterior mean of a full step; what mu-prediction inverts.
        full_posterior_xt: the factor on x_t there.
        times: the step index in the full chain that each entry stands for; arange(T) unless strided.
        full_T: the length of the full chain, by which the network's time is normalised.
    """

    a: Array
    b2: Array
    signal: Array
    noise2: Array
    prior_variance: float
    variance_preserving: bool
    full_posterior_x0: Array
    full_posterior_xt: Array
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
        return self.signal**2

    @property
    def snr(self) -> Array:
        """SNR_t = m_t^2 / S_t^2."""
        return self.signal**2 / self.noise2

    @property
    def signal_before(self) -> Array:
        """m_{t-1}, with m_0 = 1."""
        import numpy as np

        return np.concatenate([[1.0], self.signal[:-1]])

    @property
    def noise2_before(self) -> Array:
        """S_{t-1}^2, with S_0^2 = 0."""
        import numpy as np

        return np.concatenate([[0.0], self.noise2[:-1]])

    @property
    def posterior_variance(self) -> Array:
        """Var q(x_{t-1} | x_t, x_0) = b_t^2 S_{t-1}^2 / S_t^2: beta-tilde_t, Ho et al. 2020, eq. 7. Zero at t=1."""
        return self.b2 * self.noise2_before / self.noise2

    @property
    def posterior_x0(self) -> Array:
        """The factor c_t on x0 in the posterior mean: m_{t-1} b_t^2 / S_t^2, Ho et al. 2020, eq. 7."""
        return self.signal_before * self.b2 / self.noise2

    @property
    def posterior_xt(self) -> Array:
        """The factor on x_t in the posterior mean: a_t S_{t-1}^2 / S_t^2, Ho et al. 2020, eq. 7."""
        return self.a * self.noise2_before / self.noise2

    def bound_factor(self, log_sigma2: Array) -> Array:
        """Return the factor c_t^2 / (2 sigma_t^2) on ||x0 - x0hat||^2 in the KL of the step back, nats, float64 (T,).

        On the eps-error it is beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha-bar_t)), Ho et al. 2020, eq. 12.
        """
        import numpy as np

        return np.asarray(self.posterior_x0**2 / (2 * np.exp(log_sigma2)))

    @property
    def input_scale(self) -> Array:
        """What the network's input is multiplied by to have unit variance for unit data; 1 when variance-preserving."""
        import numpy as np

        if self.variance_preserving:
            return np.ones(self.T)
        return np.asarray(1 / np.sqrt(self.signal**2 + self.noise2))

    @property
    def network_time(self) -> Array:
        """1000 t / T in the full chain: what the network is told, so that T is an axis and not another embedding."""
        return 1000.0 * self.times / self.full_T

    def strided(self, times: Sequence[int]) -> Tables:
        """Return the chain that visits only ``times`` (rising indices), with the same marginals q(x_t | x_0).

        a_{t|s} = m_t / m_s and b^2_{t|s} = S_t^2 - a_{t|s}^2 S_s^2; Nichol & Dhariwal 2021, section 4.

        Raises:
            ValueError: when the indices do not rise or do not lie in the chain.
        """
        import numpy as np

        index = np.asarray(times, dtype=np.int64)
        if len(index) == 0 or index[0] < 0 or index[-1] >= self.T or np.any(np.diff(index) <= 0):
            raise ValueError(f"times must rise within 0 .. {self.T - 1}")
        if len(index) == self.T:
            return self
        signal, noise2 = self.signal[index], self.noise2[index]
        before, noise2_before = np.concatenate([[1.0], signal[:-1]]), np.concatenate([[0.0], noise2[:-1]])
        # Below that the quotient has no digits left, or is 0/0; the product of the steps between says the same.
        lost = before < np.finfo(np.float64).tiny / np.finfo(np.float64).eps
        a = np.divide(signal, before, out=np.zeros_like(signal), where=~lost)
        for k in np.flatnonzero(lost):
            a[k] = np.prod(self.a[index[k - 1] + 1 : index[k] + 1])
        b2 = noise2 - a**2 * noise2_before
        return replace(
            self,
            a=a,
            b2=b2,
            signal=signal,
            noise2=noise2,
            full_posterior_x0=self.full_posterior_x0[index],
            full_posterior_xt=self.full_posterior_xt[index],
            times=self.times[index],
        )
