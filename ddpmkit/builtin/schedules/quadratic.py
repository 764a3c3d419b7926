"""Betas whose square roots rise linearly."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, param, scaled_endpoints


@dataclass(frozen=True)
class Quadratic(Schedule):
    """Betas linear in their square root; diffusers calls it scaled_linear.

    beta_t = linspace(sqrt(beta_1), sqrt(beta_T), T)^2, endpoints scaled by 1000/T.
    """

    name = "quadratic"
    reference = "Ho et al. 2020 (arXiv 2006.11239), section 4, 'quadratic'; code: get_beta_schedule('quad')"
    used_by = "Ho's code ('quad'), latent diffusion and diffusers ('scaled_linear')"
    beta_1: float = param(1e-4, "first beta at T = 1000", gt=0, lt=1)
    beta_T: float = param(0.02, "last beta at T = 1000", gt=0, lt=1)

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,).

        Raises:
            DdpmkitError: when T is so small that a scaled endpoint reaches 1.
        """
        import numpy as np

        first, last = scaled_endpoints(self.name, self.beta_1, self.beta_T, T)
        roots = np.linspace(np.sqrt(first), np.sqrt(last), T)
        return np.square(roots)
