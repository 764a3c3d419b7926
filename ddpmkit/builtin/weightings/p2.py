"""P2 weighting."""

from dataclasses import dataclass

from ddpmkit import Array, Tables, Weighting, param


@dataclass(frozen=True)
class P2(Weighting):
    """Perception-prioritised weighting: less weight where little noise is left.

    w_t = SNR_t / (k + SNR_t)^gamma; on the eps-error 1 / (k + SNR_t)^gamma.
    """

    name = "p2"
    reference = "Choi et al. 2022 (arXiv 2204.00227), eq. 8"
    used_by = "P2's code"
    k: float = param(1.0, "keeps the weight finite", gt=0)
    gamma: float = param(1.0, "strength; 0 is uniform in eps", ge=0)

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return SNR_t / (k + SNR_t)^gamma, float64 (T,)."""
        import numpy as np

        return np.asarray(tables.snr / (self.k + tables.snr) ** self.gamma)
