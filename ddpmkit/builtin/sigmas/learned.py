"""A learned variance without bounds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit import Array, Sigma, Tables

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Learned(Sigma):
    """A free log-variance for each pixel, learned; Ho et al. found it unstable. Trained by ``hybrid`` or ``vlb``.

    log sigma_t^2 = log beta_t + u with u a second output of the network. It is told as a distance from log beta_t, so
    that a network fresh from its start is sensible, and that it means the same in a walk of fewer steps.
    """

    name = "learned"
    reference = (
        "Ho et al. 2020 (arXiv 2006.11239), Table 2, learned diagonal Sigma; Nichol & Dhariwal 2021, section 3.1"
    )
    used_by = "Ho's and OpenAI's code ('learned')"
    learned = True

    def log_bounds(self, tables: Tables) -> tuple[Array, Array]:
        """Return (log beta-tilde_t, log beta_t), each float64 (T,); u = 0 is the second."""
        from ddpmkit.builtin.sigmas.learned_range import LearnedRange

        return LearnedRange().log_bounds(tables)

    def from_network(self, low: "Tensor", high: "Tensor", out: "Tensor") -> "Tensor":
        """Return log beta_t + u, like ``out`` (B, C, H, W)."""
        return high + out
