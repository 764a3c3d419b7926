"""The full variational bound."""

from dataclasses import dataclass

from ddpmkit import Array, Tables, Weighting


@dataclass(frozen=True)
class Vlb(Weighting):
    """The full VLB weight for the chosen sigma; at t=1 the decoder's own term.

    The factor on the squared eps-error is beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha-bar_t)), with beta_t squared;
    on the x0-error it is c_t^2 / (2 sigma_t^2), c_t = sqrt(alpha-bar_{t-1}) beta_t / (1 - alpha-bar_t). In nats.
    """

    name = "vlb"
    reference = "Ho et al. 2020 (arXiv 2006.11239), eq. 12 and, for t=1, eq. 13"
    used_by = "Ho's Table 2 (objective L), OpenAI's code ('kl')"
    uses_sigma = True
    is_bound = True
    decoder_first = True

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return c_t^2 / (2 sigma_t^2), float64 (T,); :meth:`ddpmkit.Tables.bound_factor`, in plugin/tables.py."""
        return tables.bound_factor(log_sigma2)
