"""The image itself."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit import Array, Factors, Prediction, Tables

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class X0(Prediction):
    """The image x0 itself, on any chain."""

    name = "x0"
    reference = "Ho et al. 2020 (arXiv 2006.11239), section 3.2; Salimans & Ho 2022 (arXiv 2202.00512), section 4"
    used_by = "OpenAI's code (START_X), diffusers ('sample'), denoising-diffusion-pytorch ('pred_x0')"

    def target(self, at: Factors, x0: "Tensor", eps: "Tensor", xt: "Tensor") -> "Tensor":
        """Return x0."""
        return x0

    def x0hat(self, at: Factors, xt: "Tensor", out: "Tensor") -> "Tensor":
        """Return the answer as it is."""
        return out

    def divisor(self, tables: Tables) -> Array:
        """Return ones, float64 (T,)."""
        import numpy as np

        return np.ones(tables.T)
