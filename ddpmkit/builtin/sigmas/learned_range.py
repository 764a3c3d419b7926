"""A learned variance between beta-tilde and beta."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit import Array, Sigma, Tables

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LearnedRange(Sigma):
    """Learned pixel by pixel between beta-tilde and beta, as in Improved DDPM; trained by ``hybrid`` or ``vlb``.

    log sigma_t^2 = f log beta_t + (1 - f) log beta-tilde_t with f = (v + 1) / 2, v a second output of the network that
    is not clamped. At t=1 beta-tilde_2 stands for beta-tilde_1, and the decoder has the network's variance too.
    """

    name = "learned-range"
    reference = "Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 15"
    used_by = "improved- and guided-diffusion, DiT, diffusers ('learned_range')"
    learned = True

    def log_bounds(self, tables: Tables) -> tuple[Array, Array]:
        """Return (log beta-tilde_t, log beta_t), each float64 (T,)."""
        from ddpmkit.builtin.sigmas.beta import Beta
        from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde

        return BetaTilde().log_bounds(tables)[0], Beta().log_bounds(tables)[1]

    def from_network(self, low: "Tensor", high: "Tensor", out: "Tensor") -> "Tensor":
        """Return f high + (1 - f) low with f = (out + 1) / 2, like ``out`` (B, C, H, W); eq. 15, v being ``out``."""
        share = (out + 1) / 2
        return share * high + (1 - share) * low
