"""DDIM: the same marginals with less noise in each step, or none."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit import SPACING_HELP, Array, Clip, Denoise, Noise, Sampler, Spacing, Tables, clipped, param, spaced

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ddim(Sampler):
    """DDIM; eta=0 is deterministic, eta=1 adds as much noise as ancestral sampling with beta-tilde.

    x_{t-1} = m_{t-1} x0hat + sqrt(S_{t-1}^2 - s_t^2) eps + s_t z with s_t^2 = eta^2 beta-tilde_t. With ``rederive`` eps
    comes from the clipped x0hat (OpenAI's code); without it, from x0hat as the network gave it (diffusers' default).
    Fixed and learned sigmas do not enter; a fitted one adds what not knowing x0 costs (Analytic-DDIM).
    """

    name = "ddim"
    reference = "Song, Meng & Ermon 2021 (arXiv 2010.02502), eq. 12 and eq. 16"
    used_by = "nearly everyone; eps after clipping: OpenAI derives it again, diffusers and Analytic-DPM do not"
    uses_sigma = False
    eta: float = param(0.0, "0 deterministic, 1 as noisy as ancestral", ge=0, le=1)
    spacing: Spacing = param("even", SPACING_HELP)
    clip: Clip = param("static", "what is done to x0hat beyond [-1, 1]")
    rederive: bool = param(True, "derive eps again from the clipped x0hat")

    def timesteps(self, T: int, count: int) -> list[int]:
        """Return indices that rise to T-1."""
        return spaced(self.spacing, T, count)

    def kernel(self, tables: Tables) -> tuple[Array, Array]:
        """Return (eta^2 beta-tilde_t, m_{t-1} - m_t sqrt(S_{t-1}^2 - lambda_t^2) / S_t); Song et al. 2021, eq. 7."""
        import numpy as np

        variance = self.eta**2 * tables.posterior_variance
        on_eps = np.sqrt(np.maximum(tables.noise2_before - variance, 0))
        return variance, tables.signal_before - on_eps * tables.signal / np.sqrt(tables.noise2)

    def sample(self, denoise: Denoise, tables: Tables, noise: Noise) -> "Tensor":
        """Walk the chain from its last step to its first; see :class:`ddpmkit.Sampler`."""
        import math

        import numpy as np

        variance, _ = self.kernel(tables)
        noise_before = np.sqrt(np.maximum(tables.noise2_before - variance, 0)).tolist()
        signal, before = tables.signal.tolist(), tables.signal_before.tolist()
        deviation = np.sqrt(tables.noise2).tolist()
        x: Tensor = noise(0) * math.sqrt(tables.prior_variance)
        for k, t in enumerate(range(tables.T - 1, -1, -1)):
            denoised = denoise(x, t)
            x0 = clipped(denoised.x0, self.clip)
            eps = (x - signal[t] * (x0 if self.rederive else denoised.x0)) / deviation[t]
            x = before[t] * x0 + noise_before[t] * eps
            if t > 0 and not denoised.quiet:
                x = x + denoised.sigma * noise(k + 1)
        return x
