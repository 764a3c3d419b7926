"""The variance that makes the bound smallest."""

from collections.abc import Mapping
from dataclasses import dataclass

from ddpmkit import Array, Sigma, Tables
from ddpmkit.builtin.sigmas.analytic import Analytic


@dataclass(frozen=True)
class Optimal(Sigma):
    """The isotropic variance that minimises the bound for this network, from its errors on training images.

    sigma_t^2 = beta-tilde_t + c_t^2 E (x_0 - x0hat)^2: where dL_{t-1} / d sigma_t^2 = 0. ``analytic`` is the same for
    an exact denoiser; this one counts the network's own mistakes too. x0hat is clipped where the reported bound is.
    """

    name = "optimal"
    reference = "the minimum over sigma_t of Ho et al. 2020 (arXiv 2006.11239), eq. 8 with its variance term kept"
    fitted = True

    def log_bounds(self, tables: Tables) -> tuple[Array, Array]:
        """Return the limits for an error from 0 to 1, each float64 (T,)."""
        return Analytic().log_bounds(tables)

    def x0_variance(self, tables: Tables, statistics: Mapping[str, Array]) -> Array:
        """Return E (x_0 - x0hat)^2 per dimension, float64 (T,)."""
        return statistics["error_clipped" if tables.variance_preserving else "error"]
