"""The mean of the posterior."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit import Array, Factors, Prediction, Tables

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mu(Prediction):
    """The posterior mean mu-tilde = c_t x0 + k_t x_t of a step of the full chain.

    x0hat = (mu-hat - k_t x_t) / c_t is solved for and clipped as for any other; its squared error is c_t^2 times that
    of x0. Improved-diffusion takes the network's mean as it is. Between two steps there is no such mean.
    """

    name = "mu"
    reference = "Ho et al. 2020 (arXiv 2006.11239), eq. 7, 8 and Table 2, first rows"
    used_by = "Ho's Table 2, OpenAI's code (PREVIOUS_X)"
    between_steps = False
    instead = "eps, x0 or v"

    def target(self, at: Factors, x0: "Tensor", eps: "Tensor", xt: "Tensor") -> "Tensor":
        """Return c_t x0 + k_t x_t."""
        return at.posterior_x0 * x0 + at.posterior_xt * xt

    def x0hat(self, at: Factors, xt: "Tensor", out: "Tensor") -> "Tensor":
        """Return (out - k_t x_t) / c_t."""
        return (out - at.posterior_xt * xt) / at.posterior_x0

    def divisor(self, tables: Tables) -> Array:
        """Return c_t^2, float64 (T,)."""
        return tables.full_posterior_x0**2

    def impossible(self, tables: Tables) -> str | None:
        """Refuse a chain whose c_t is less than float32 holds: there the mean says nothing of x0."""
        from ddpmkit.builtin.predictions.eps import too_small

        return too_small("mu-prediction divides by its factor c_t on x0", tables.full_posterior_x0)
