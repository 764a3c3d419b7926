"""L_simple."""

from dataclasses import dataclass

from ddpmkit import Array, Tables, Weighting


@dataclass(frozen=True)
class Simple(Weighting):
    """L_simple: every step's squared eps-error counts the same.

    L_simple = E ||eps - eps_theta||^2, that is the factor SNR_t on the squared x0-error.
    """

    name = "simple"
    reference = "Ho et al. 2020 (arXiv 2006.11239), eq. 14"
    used_by = "nearly everyone"

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return SNR_t, float64 (T,)."""
        return tables.snr
