"""The SNR, truncated from above (Min-SNR)."""

from dataclasses import dataclass

from ddpmkit import Array, Tables, Weighting, param


@dataclass(frozen=True)
class MinSnr(Weighting):
    """SNR_t on the x0-error, but never above gamma.

    w_t = min(SNR_t, gamma); on the eps-error min(SNR_t, gamma) / SNR_t, on the v-error / (SNR_t + 1).
    """

    name = "min-snr"
    reference = "Hang et al. 2023 (arXiv 2303.09556), eq. 6 and section 3.4"
    used_by = "Min-SNR's code, the text-to-image examples of diffusers, denoising-diffusion-pytorch"
    gamma: float = param(5.0, "largest weight", gt=0)

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return min(SNR_t, gamma), float64 (T,)."""
        import numpy as np

        return np.minimum(tables.snr, self.gamma)
