"""Weighting by the signal-to-noise ratio."""

from dataclasses import dataclass

from ddpmkit import Array, Tables, Weighting


@dataclass(frozen=True)
class Snr(Weighting):
    """SNR_t on the x0-error, which is uniform in eps: the same numbers as ``simple`` under its other name.

    w_t = SNR_t.
    """

    name = "snr"
    reference = "Salimans & Ho 2022 (arXiv 2202.00512), section 4, SNR weighting"
    used_by = "progressive distillation, Min-SNR's code"

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return SNR_t, float64 (T,)."""
        return tables.snr
