"""Images of any number of channels as pixels: one grey, three colour, any other number as grey tiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Levels

LINE = 128  # grey between the channels' tiles


def as_rgb(images: Levels, levels: int) -> Levels:
    """Return grey levels 0 .. K-1, (N, C, H, W), as 8-bit colour (N, H', W', 3).

    One channel is grey and three are red, green and blue. Two, four or more have no colours of their own, as those of
    latents: they lie side by side as grey tiles, row by row, with a line between them.
    """
    scaled = np.round(images.astype(np.float64) * 255 / (levels - 1)).astype(np.uint8)
    n, c, h, w = scaled.shape
    if c == 3:
        return np.ascontiguousarray(scaled.transpose(0, 2, 3, 1))
    across = math.ceil(math.sqrt(c))
    down = -(-c // across)
    canvas = np.full((n, down * (h + 1) - 1, across * (w + 1) - 1), LINE, np.uint8)
    for i in range(c):
        y, x = (i // across) * (h + 1), (i % across) * (w + 1)
        canvas[:, y : y + h, x : x + w] = scaled[:, i]
    return np.repeat(canvas[..., None], 3, axis=3)


def tile(images: Levels, levels: int, across: int, gap: int = 1) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Lay images out on a white ground, ``across`` in a row: (N, C, H, W) levels -> (H', W', 3) uint8."""
    shown = as_rgb(images, levels)
    n, h, w, _ = shown.shape
    down = -(-n // across)
    canvas = np.full((down * (h + gap) - gap, across * (w + gap) - gap, 3), 255, np.uint8)
    for i, image in enumerate(shown):
        y, x = (i // across) * (h + gap), (i % across) * (w + gap)
        canvas[y : y + h, x : x + w] = image
    return canvas
