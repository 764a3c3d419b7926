"""Ancestral sampling: Algorithm 2 of DDPM, over any subset of the steps."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit import SPACING_HELP, Clip, Denoise, Noise, Sampler, Spacing, Tables, clipped, param, spaced

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Ancestral sampling (Algorithm 2) with any number of steps.

    x_{t-1} = c_t x0hat + k_t x_t + sigma_t z, the posterior's mean at the estimate x0hat; the last step of the walk
    adds no noise. c_t and k_t are of plugin/tables.py, sigma_t is of ``step_sigmas`` in diffusion/reverse_variance.py.
    """

    name = "ancestral"
    reference = "Ho et al. 2020 (arXiv 2006.11239), Algorithm 2; fewer steps: Nichol & Dhariwal 2021, section 4"
    used_by = "nearly everyone; fewer steps: OpenAI's respacing (spacing=openai), diffusers"
    spacing: Spacing = param("even", SPACING_HELP)
    clip: Clip = param("static", "what is done to x0hat beyond [-1, 1]")

    def timesteps(self, T: int, count: int) -> list[int]:
        """Return indices that rise to T-1."""
        return spaced(self.spacing, T, count)

    def sample(self, denoise: Denoise, tables: Tables, noise: Noise) -> "Tensor":
        """Walk the chain from its last step to its first; see :class:`ddpmkit.Sampler`."""
        import math

        # Plain floats: a numpy scalar times a tensor would be numpy's product, and a copy to the host.
        on_x0, on_xt = tables.posterior_x0.tolist(), tables.posterior_xt.tolist()
        x: Tensor = noise(0) * math.sqrt(tables.prior_variance)
        for k, t in enumerate(range(tables.T - 1, -1, -1)):
            denoised = denoise(x, t)
            x = on_x0[t] * clipped(denoised.x0, self.clip) + on_xt[t] * x
            if t > 0:
                x = x + denoised.sigma * noise(k + 1)
        return x
