"""The straight alpha-bar (Chen 2023)."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, betas_from_alpha_bars, param


@dataclass(frozen=True)
class OneMinusT(Schedule):
    """Straight alpha-bar from Chen 2023, there called simple linear.

    alpha-bar(u) = 1 - u, clipped from below at ``floor``.
    """

    name = "one-minus-t"
    reference = "Chen 2023 (arXiv 2301.10972), section 2.1, simple linear"
    used_by = "pix2seq ('simple_linear')"
    floor: float = param(1e-9, "alpha-bar is clipped from below at this", gt=0, lt=1)

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,)."""
        import numpy as np

        return betas_from_alpha_bars(np.maximum(1 - np.arange(T + 1) / T, self.floor))
