"""L_hybrid: L_simple for the mean, a little of the bound for the variance."""

import math
from dataclasses import dataclass

from ddpmkit import Array, Tables, Weighting, param


@dataclass(frozen=True)
class Hybrid(Weighting):
    """L_simple + lam L_vlb, the mean held still in the second term; for learned sigmas, which it teaches.

    lam L_vlb is lam T L_{t-1} in bits per dimension for a t drawn evenly (at t=1 the decoder's own term): the scaling
    that OpenAI's code realises with lam=0.001. In nats it would be 0.69 of that; without T, a thousandth. The mean is
    detached (stop-gradient) in diffusion/objective.py: ``loss``.
    """

    name = "hybrid"
    reference = "Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 16"
    used_by = (
        "improved- and guided-diffusion, DiT; denoising-diffusion-pytorch without the factor T, a thousandfold weaker"
    )
    uses_sigma = True
    lam: float = param(0.001, "lambda, the share of the bound", gt=0)

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return SNR_t, float64 (T,): L_simple's."""
        return tables.snr

    def vlb_share(self, T: int) -> float:
        """Return lam T / ln 2, the factor on nats per dimension."""
        return self.lam * T / math.log(2)
