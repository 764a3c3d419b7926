"""sigma_t^2 = beta_t."""

from dataclasses import dataclass

from ddpmkit import Array, Sigma, Tables


@dataclass(frozen=True)
class Beta(Sigma):
    """Reverse variance beta_t: exact when the data are unit Gaussian; often called fixed-large.

    sigma_t^2 = beta_t (b_t^2 for a general chain). It is the upper of the two bounds on the true reverse variance.
    """

    name = "beta"
    reference = "Ho et al. 2020 (arXiv 2006.11239), section 3.2, sigma_t^2 = beta_t"
    used_by = "'fixedlarge' of Ho's and OpenAI's code, 'fixed_large' of diffusers"

    def log_bounds(self, tables: Tables) -> tuple[Array, Array]:
        """Return log beta_t twice, each float64 (T,)."""
        import numpy as np

        log_beta = np.log(tables.b2)
        return log_beta, log_beta
