"""Between beta-tilde and beta."""

from dataclasses import dataclass

from ddpmkit import Array, Sigma, Tables, param
from ddpmkit.builtin.sigmas.beta import Beta
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde


@dataclass(frozen=True)
class Interpolate(Sigma):
    """A fixed mixture of the two bounds, log-linear; what learned-range learns, held still.

    log sigma_t^2 = w log beta_t + (1 - w) log beta-tilde_t.
    """

    name = "interpolate"
    reference = "Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 15, with a constant v"
    w: float = param(0.5, "0 is beta-tilde, 1 is beta", ge=0, le=1)

    def log_bounds(self, tables: Tables) -> tuple[Array, Array]:
        """Return the mixture twice, each float64 (T,)."""
        low, high = BetaTilde().log_bounds(tables)[0], Beta().log_bounds(tables)[1]
        mixed = self.w * high + (1 - self.w) * low
        return mixed, mixed
