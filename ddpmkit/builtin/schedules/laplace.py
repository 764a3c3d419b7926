"""Log-SNR with a Laplace density (Hang et al. 2024)."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, betas_from_alpha_bars, param


@dataclass(frozen=True)
class Laplace(Schedule):
    """Log-SNR distributed like a Laplace variable, so that steps crowd around log-SNR = mu.

    lambda(u) = mu - b sign(1/2 - u) ln(1 - 2 |u - 1/2|), alpha-bar = sigmoid(lambda), betas clipped. diffusers
    takes the square root of this as its alpha-bar, so its table differs.
    """

    name = "laplace"
    reference = "Hang et al. 2024 (arXiv 2407.03297), table 1"
    used_by = "diffusers (beta_schedule='laplace')"
    mu: float = param(0.0, "log-SNR at the middle")
    b: float = param(0.5, "width of the density", gt=0)
    max_beta: float = param(0.999, "betas are clipped to this", gt=0, lt=1)

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,)."""
        import numpy as np

        u = np.arange(1, T) / T  # inside (0, 1); the ends are alpha-bar = 1 and 0
        log_snr = self.mu - self.b * np.sign(0.5 - u) * np.log1p(-2 * np.abs(u - 0.5))
        alpha_bars = np.concatenate([[1.0], 1 / (1 + np.exp(-log_snr)), [0.0]])
        return betas_from_alpha_bars(alpha_bars, self.max_beta)
