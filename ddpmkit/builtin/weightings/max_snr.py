"""The SNR, truncated from below at k."""

from dataclasses import dataclass

from ddpmkit import Array, Tables, Weighting, param


@dataclass(frozen=True)
class MaxSnr(Weighting):
    """SNR_t on the x0-error, but never below k; the control of the Min-SNR paper.

    w_t = max(SNR_t, k).
    """

    name = "max-snr"
    reference = "Hang et al. 2023 (arXiv 2303.09556), code: max_snr"
    used_by = "Min-SNR's code"
    k: float = param(5.0, "smallest weight", gt=0)

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return max(SNR_t, k), float64 (T,)."""
        import numpy as np

        return np.maximum(tables.snr, self.k)
