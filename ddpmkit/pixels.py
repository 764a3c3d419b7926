"""Grey levels <-> pixel values, in one place: level k of K stands for -1 + 2 k / (K - 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def to_pixels(levels: Tensor, count: int) -> Tensor:
    """uint8 levels 0 .. K-1 -> float32 in [-1, 1], any shape."""
    return levels.float() * (2.0 / (count - 1)) - 1.0


def quantise(pixels: Tensor, count: int) -> Tensor:
    """Float in [-1, 1] (clamped) -> uint8 levels 0 .. K-1, by rounding to the nearest level."""
    return ((pixels.clamp(-1.0, 1.0) + 1.0) * ((count - 1) / 2.0)).round().to(torch.uint8)
