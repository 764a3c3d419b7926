"""What the schedules that are given as alpha-bar(u), u = t/T, share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Array


def betas_from_alpha_bars(alpha_bars: Array, max_beta: float = 1.0) -> Array:
    """Return beta_t = min(1 - alpha-bar_t / alpha-bar_{t-1}, max_beta), (T,), from alpha-bar at u = 0, 1/T, ..., 1.

    Shape (T + 1,); the first entry stands for the clean image.
    """
    import numpy as np

    return np.asarray(np.minimum(1 - alpha_bars[1:] / alpha_bars[:-1], max_beta))
