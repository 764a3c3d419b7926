"""The network of linear layers as torch modules; imported only when a network is built."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from ddpmkit.builtin.backbones._layers import Labels, position_embedding, zero


class Block(nn.Module):
    """norm, SiLU, linear, shift by time, norm, SiLU, dropout, zeroed linear; plus the skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.linear1 = nn.LayerNorm(width), nn.Linear(width, width)
        self.time = nn.Linear(width, width)
        self.norm2, self.dropout = nn.LayerNorm(width), nn.Dropout(0.0)
        self.linear2 = zero(nn.Linear(width, width))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, width), (B, width) -> (B, width)."""
        h = self.linear1(F.silu(self.norm1(x))) + self.time(emb)
        out: Tensor = x + self.linear2(self.dropout(F.silu(self.norm2(h))))
        return out


class MLPModule(nn.Module):
    """forward(x, t, y=None); the keywords are the parameters of the component ``mlp``, see ``ddpmkit show mlp``."""

    def __init__(self, cin: int, cout: int, classes: int | None, *, width: int, depth: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Sequential(nn.Linear(2 * (width // 2), width), nn.SiLU(), nn.Linear(width, width))
        self.labels = Labels(classes, width) if classes is not None else None
        self.linear_in = nn.Linear(cin, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm_out, self.linear_out = nn.LayerNorm(width), zero(nn.Linear(width, cout))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """X (B, C, H, W), t float32 (B,) in [0, 1000), y int64 (B,) or None -> (B, C', H, W)."""
        emb = self.embed(position_embedding(t, self.width).to(x.dtype))
        if self.labels is not None:
            emb = emb + self.labels.of(y, len(x))
        emb = F.silu(emb)
        h = self.linear_in(x.flatten(1))
        for block in self.blocks:
            h = block(h, emb)
        out: Tensor = self.linear_out(F.silu(self.norm_out(h)))
        return out.reshape(len(x), -1, *x.shape[2:])
