"""Uniform in the prediction's own space."""

from dataclasses import dataclass

from ddpmkit import Array, Tables, Weighting


@dataclass(frozen=True)
class Native(Weighting):
    """Plain squared error of whatever the network predicts: eps, x0 or v.

    w_t = 1 in the prediction's own space; for eps it is ``simple``. Zero-terminal-SNR training with v uses it.
    """

    name = "native"
    reference = "Ho et al. 2020 (arXiv 2006.11239), table 2, third column; Lin et al. 2024 (arXiv 2305.08891)"
    used_by = "Ho's Table 2 (the mean), v-training with zero terminal SNR"
    space = "prediction"

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return ones, float64 (T,)."""
        import numpy as np

        return np.ones(tables.T)
