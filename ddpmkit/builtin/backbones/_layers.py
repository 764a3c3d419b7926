"""What the networks share: the embedding of time, the start at zero; imported only when a network is built."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def zero(layer: Layer) -> Layer:
    """Zero a layer, so that its block starts as the identity (Ho et al. 2020, code; appendix B)."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def position_embedding(t: Tensor, width: int, *, sines_first: bool = False) -> Tensor:
    """Sinusoids of t in [0, 1000): (B,) -> (B, 2 floor(width/2)), frequencies 10000^(-i/n) for i < width/2.

    Cosines first and n = width/2, so that 1/10000 is not reached (Nichol & Dhariwal 2021, code); or sines first and
    n = width/2 - 1, so that it is (Ho et al. 2020, code).
    """
    half = width // 2
    n = half - 1 if sines_first else half
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / n)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()] if sines_first else [angles.cos(), angles.sin()], dim=1)


class Labels(nn.Embedding):
    """A vector for each of K classes, and one more, of index K, for "no label"."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes + 1, width)

    def of(self, y: Tensor | None, count: int) -> Tensor:
        """Y int64 (B,) in 0 .. K -> (B, width); None means no label for any of the ``count`` images."""
        if y is None:
            y = torch.full((count,), self.num_embeddings - 1, device=self.weight.device)
        out: Tensor = self(y)
        return out
