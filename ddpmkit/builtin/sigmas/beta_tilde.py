"""sigma_t^2 = beta-tilde_t."""

from dataclasses import dataclass

from ddpmkit import Array, Sigma, Tables


@dataclass(frozen=True)
class BetaTilde(Sigma):
    """Reverse variance beta-tilde_t: exact when the data are one point; often called fixed-small.

    sigma_t^2 = beta-tilde_t = beta_t (1 - alpha-bar_{t-1}) / (1 - alpha-bar_t), the posterior variance, computed in
    plugin/tables.py. At t=1 it is zero; its place is taken by beta-tilde_2, as in Ho's and OpenAI's code, and matters
    to the decoder alone.
    """

    name = "beta-tilde"
    reference = "Ho et al. 2020 (arXiv 2006.11239), eq. 7 and section 3.2"
    used_by = "'fixedsmall' of Ho's and OpenAI's code, 'fixed_small' of diffusers; denoising-diffusion-pytorch"

    def log_bounds(self, tables: Tables) -> tuple[Array, Array]:
        """Return log beta-tilde_t twice, each float64 (T,)."""
        import numpy as np

        variance = tables.posterior_variance.copy()
        variance[0] = variance[1] if tables.T > 1 else tables.b2[0]
        log_variance = np.log(variance)
        return log_variance, log_variance
