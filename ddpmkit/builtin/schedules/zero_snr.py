"""Any of the common schedules, rescaled so that the last step keeps nothing of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ddpmkit import Array, Schedule, param


@dataclass(frozen=True)
class ZeroSnr(Schedule):
    """A schedule shifted and scaled to terminal SNR exactly 0, its first step unchanged; the last beta is 1.

    sqrt(alpha-bar_t)' = (sqrt(alpha-bar_t) - sqrt(alpha-bar_T)) sqrt(alpha-bar_1) / (sqrt(alpha-bar_1) -
    sqrt(alpha-bar_T)). eps-prediction is undefined at T; train it with v or x0.
    """

    name = "zero-snr"
    reference = "Lin et al. 2024 (arXiv 2305.08891), algorithm 1"
    used_by = "diffusers (rescale_betas_zero_snr)"
    base: Literal["linear", "cosine", "sigmoid", "quadratic"] = param("linear", "the schedule that is rescaled")

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,), the last one exactly 1.

        Raises:
            DdpmkitError: when T is too small for the base schedule.
        """
        import numpy as np

        from ddpmkit.builtin.schedules.cosine import Cosine
        from ddpmkit.builtin.schedules.linear import Linear
        from ddpmkit.builtin.schedules.quadratic import Quadratic
        from ddpmkit.builtin.schedules.sigmoid import Sigmoid

        base = {"linear": Linear, "cosine": Cosine, "sigmoid": Sigmoid, "quadratic": Quadratic}[self.base]()
        root = np.exp(np.cumsum(np.log1p(-base.betas(T))) / 2)
        shifted = (root - root[-1]) * root[0] / (root[0] - root[-1])
        squared = np.concatenate([[1.0], shifted**2])
        return np.asarray(1 - squared[1:] / squared[:-1])
