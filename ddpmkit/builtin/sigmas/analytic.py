"""Analytic-DPM: the best variance for the mean that the network predicts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ddpmkit import Array, Sigma, Tables, param
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde


@dataclass(frozen=True)
class Analytic(Sigma):
    """The optimal variance in closed form from the mean square of the predicted noise; needs no further training.

    Var(x_0 | x_t) = S_t^2 / m_t^2 (1 - E eps-hat^2), kept in [0, 1]; sigma_t^2 = lambda_t^2 + kappa_t^2 Var(x_0 | x_t),
    with beta-tilde_t and c_t for the chain itself (DDPM) and DDIM's own for DDIM. When sampling, the last noisy step
    adds at most ``pixels`` grey levels in the mean; the likelihood is not touched. Exact for an exact denoiser.
    """

    name = "analytic"
    reference = (
        "Bao et al. 2022 (arXiv 2201.06503), theorem 1; the limit on the last noisy step as in their sampling code"
    )
    used_by = "Analytic-DPM, with the DDPM and the DDIM walk"
    fitted = True
    pixels: float = param(1.0, "mean size in grey levels of the last step's noise, at most", gt=0)

    def log_bounds(self, tables: Tables) -> tuple[Array, Array]:
        """Return (log beta-tilde_t, log(beta-tilde_t + c_t^2)): Var(x_0 | x_t) from 0 to 1; each float64 (T,)."""
        import numpy as np

        low, _ = BetaTilde().log_bounds(tables)
        return low, np.log(np.exp(low) + tables.posterior_x0**2)

    def x0_variance(self, tables: Tables, statistics: Mapping[str, Array]) -> Array:
        """Return S_t^2 / m_t^2 (1 - E eps-hat^2) within [0, 1], float64 (T,); 1 where x_t says nothing of x0."""
        import numpy as np

        left, snr = 1 - statistics["eps_squared"], tables.snr
        return np.clip(np.divide(left, snr, out=np.ones(tables.T), where=snr > 0), 0.0, 1.0)

    def largest_last_variance(self, levels: int) -> float:
        """Return (pixels 2/(K-1) sqrt(pi/2))^2, for which E|sigma z| is that many grey levels."""
        return (self.pixels * 2 / (levels - 1) * math.sqrt(math.pi / 2)) ** 2
