"""From alpha-bar, a function of u = t/T, to betas."""

from __future__ import annotations

from ddpmkit.plugin.tables import Array


def betas_from_alpha_bars(alpha_bars: Array, max_beta: float = 1.0) -> Array:
    """Return beta_t = min(1 - alpha-bar_t / alpha-bar_{t-1}, max_beta), (T,), from alpha-bar at u = 0, 1/T, ..., 1.

    Nichol & Dhariwal 2021 (arXiv 2102.09672), section 3.2. ``alpha_bars`` is float64 (T + 1,); its first entry stands
    for the clean image.
    """
    import numpy as np

    return np.asarray(np.minimum(1 - alpha_bars[1:] / alpha_bars[:-1], max_beta))
