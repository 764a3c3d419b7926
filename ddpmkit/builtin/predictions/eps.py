"""The noise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit import Array, Factors, Prediction, Tables

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Eps(Prediction):
    """The noise eps of x_t = m_t x0 + S_t eps.

    x0hat = (x_t - S_t eps-hat) / m_t, so its squared error is SNR_t times that of x0.
    """

    name = "eps"
    reference = "Ho et al. 2020 (arXiv 2006.11239), eq. 11 and 14"
    used_by = "Ho's, OpenAI's and most other code"
    instead = "v or x0"

    def target(self, at: Factors, x0: "Tensor", eps: "Tensor", xt: "Tensor") -> "Tensor":
        """Return eps."""
        return eps

    def x0hat(self, at: Factors, xt: "Tensor", out: "Tensor") -> "Tensor":
        """Return (x_t - S_t out) / m_t."""
        return (xt - at.noise * out) / at.signal

    def divisor(self, tables: Tables) -> Array:
        """Return SNR_t, float64 (T,)."""
        return tables.snr

    def impossible(self, tables: Tables) -> str | None:
        """Refuse a chain that ends without signal, or with less than float32 holds: there x_t is eps itself."""
        if not tables.signal.all():
            return "eps-prediction says nothing of x0 where the chain leaves no signal at its last step"
        return too_small("eps-prediction divides by the signal m_t", tables.signal)


def too_small(what: str, factor: Array) -> str | None:
    """Return why a prediction that divides by a factor has no x0hat in float32; None where it has.

    Below the smallest normal number a factor has few digits or is 0, and an error over it is infinite.
    """
    import numpy as np

    lost = np.abs(factor) < np.finfo(np.float32).tiny
    if not lost.any():
        return None
    t = int(np.argmax(lost))
    said = f"{what}, which is {factor[t]:.2g} at step {t} of {len(factor)}, less than float32 holds"
    return f"{said}; x0 and v divide by nothing"
