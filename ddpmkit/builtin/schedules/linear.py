"""Betas that rise linearly (DDPM)."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, param, scaled_endpoints


@dataclass(frozen=True)
class Linear(Schedule):
    """Linear betas from DDPM, endpoints scaled by 1000/T.

    beta_t = linspace(beta_1, beta_T, T) * 1000/T. Without the scaling a short chain would leave the signal in x_T.
    """

    name = "linear"
    reference = "Ho et al. 2020 (arXiv 2006.11239), section 4; scaling: Nichol & Dhariwal 2021 (arXiv 2102.09672)"
    used_by = (
        "nearly everyone; fixed endpoints (scaled=false): Ho's code, diffusers; scaled by 1000/T: "
        "OpenAI, DiT, denoising-diffusion-pytorch"
    )
    beta_1: float = param(1e-4, "first beta at T = 1000", gt=0, lt=1)
    beta_T: float = param(0.02, "last beta at T = 1000", gt=0, lt=1)
    scaled: bool = param(True, "scale both by 1000/T; without it a short chain leaves signal in x_T")

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,).

        Raises:
            DdpmkitError: when T is so small that a scaled endpoint reaches 1.
        """
        import numpy as np

        first, last = self.beta_1, self.beta_T
        if self.scaled:
            first, last = scaled_endpoints(self.name, first, last, T)
        return np.linspace(first, last, T)
