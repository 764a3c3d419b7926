"""The SNR, truncated from below at 1."""

from dataclasses import dataclass

from ddpmkit import Array, Tables, Weighting


@dataclass(frozen=True)
class TruncatedSnr(Weighting):
    """SNR_t on the x0-error, but never below 1.

    w_t = max(SNR_t, 1).
    """

    name = "truncated-snr"
    reference = "Salimans & Ho 2022 (arXiv 2202.00512), section 4, truncated SNR weighting"
    used_by = "progressive distillation, Min-SNR's code"

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return max(SNR_t, 1), float64 (T,)."""
        import numpy as np

        return np.maximum(tables.snr, 1.0)
