"""The simple forward process: add noise, scale nothing."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, param


@dataclass(frozen=True)
class RandomWalk(Schedule):
    """The plain random walk x_t = x_{t-1} + eps_t: variance-exploding, why a variance-preserving chain is wanted.

    a_t = 1, b_t^2 = step^2 * 1000/T; x_T is N(mu, Sigma + T b^2 I), and the prior N(0, T b^2).
    """

    name = "random-walk"
    reference = "Sohl-Dickstein et al. 2015 (arXiv 1503.03585); variance-exploding: Song et al. 2021 (arXiv 2011.13456)"
    used_by = "the first derivations of diffusion; score-based models in its continuous form (VE)"
    step: float = param(1.0, "standard deviation that a step adds at T = 1000", gt=0)

    def steps(self, T: int) -> tuple[Array, Array]:
        """Return (1, b^2), float64 (T,) each."""
        import numpy as np

        return np.ones(T), np.full(T, self.step**2 * 1000 / T)

    def prior_variance(self, T: int) -> float:
        """Return T b^2."""
        return self.step**2 * 1000
