"""The velocity."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit import Array, Factors, Prediction, Tables

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class V(Prediction):
    """The velocity v = m_t eps - S_t x0, for variance-preserving chains.

    x0hat = m_t x_t - S_t v-hat since m_t^2 + S_t^2 = 1; its squared error is SNR_t + 1 times that of x0.
    """

    name = "v"
    reference = "Salimans & Ho 2022 (arXiv 2202.00512), section 4 and appendix D"
    used_by = "progressive distillation, Imagen Video, diffusers ('v_prediction'), zero-terminal-SNR training"
    instead = "eps or x0"

    def target(self, at: Factors, x0: "Tensor", eps: "Tensor", xt: "Tensor") -> "Tensor":
        """Return m_t eps - S_t x0."""
        return at.signal * eps - at.noise * x0

    def x0hat(self, at: Factors, xt: "Tensor", out: "Tensor") -> "Tensor":
        """Return m_t x_t - S_t out."""
        return at.signal * xt - at.noise * out

    def divisor(self, tables: Tables) -> Array:
        """Return SNR_t + 1, float64 (T,)."""
        return tables.snr + 1

    def impossible(self, tables: Tables) -> str | None:
        """Refuse a chain that is not variance-preserving."""
        return None if tables.variance_preserving else "v-prediction needs a variance-preserving schedule"
