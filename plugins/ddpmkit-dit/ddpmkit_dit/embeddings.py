"""Where a token stands, and when: what is told to the blocks. Imported only when a network is built."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WAVES = 256  # numbers of the sinusoids of t, whatever the width


def position_table(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of each token's column and row, (1, rows columns, width), as in the code of DiT.

    The first half tells the column, the second the row; a half is sin then cos of p 10000^(-i/n), i < n = width/4.
    """

    def waves(count: int) -> Tensor:
        frequencies = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
        angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    across, down = waves(columns).repeat(rows, 1), waves(rows).repeat_interleave(columns, dim=0)
    return torch.cat([across, down], dim=1)[None].float()


class Time(nn.Module):
    """t in [0, 1000) -> (B, width): 256 sinusoids, cosines first, and two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = nn.Linear(WAVES, width), nn.Linear(width, width)
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=0.02)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """(B,) -> (B, width)."""
        half = WAVES // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
        angles = t.float()[:, None] * frequencies
        out: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(dtype))
        return out


class Labels(nn.Embedding):
    """A vector for each of K classes, and one more, of index K, for "no label"."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes + 1, width)
        nn.init.normal_(self.weight, std=0.02)

    def of(self, y: Tensor | None, count: int) -> Tensor:
        """Y int64 (B,) in 0 .. K -> (B, width); None means no label for any of the ``count`` images."""
        if y is None:
            y = torch.full((count,), self.num_embeddings - 1, device=self.weight.device)
        out: Tensor = self(y)
        return out
