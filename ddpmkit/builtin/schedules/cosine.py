"""Betas from a cosine-shaped alpha-bar (Improved DDPM)."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, betas_from_alpha_bars, param


@dataclass(frozen=True)
class Cosine(Schedule):
    """Cosine alpha-bar from Improved DDPM, with its small offset s and its clipped betas.

    f(u) = cos^2((u + s) / (1 + s) * pi/2), beta_t = min(1 - f(t/T) / f((t-1)/T), max_beta). At T = 1000 the clip
    touches the last beta alone.
    """

    name = "cosine"
    reference = "Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17"
    used_by = (
        "improved- and guided-diffusion, DiT, Analytic-DPM, diffusers (squaredcos_cap_v2), denoising-diffusion-pytorch"
    )
    s: float = param(0.008, "offset that keeps beta_1 from vanishing", ge=0)
    max_beta: float = param(0.999, "betas are clipped to this", gt=0, lt=1)

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,)."""
        import numpy as np

        u = np.arange(T + 1) / T
        f = np.cos((u + self.s) / (1 + self.s) * np.pi / 2) ** 2
        return betas_from_alpha_bars(f, self.max_beta)
