"""A block of a DiT and its last layer. Imported only when a network is built."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer that starts uniformly by the mean of fan-in and fan-out, its bias at zero, as all of DiT's."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zeroed(inputs: int, outputs: int) -> nn.Linear:
    """A layer that starts at zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def layer_norm(width: int) -> nn.LayerNorm:
    """LayerNorm without weights: scale and shift come from time and label."""
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """H (1 + scale) + shift; h (B, N, width), the others (B, width)."""
    return h * (1 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    """Self-attention over all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = linear(width, 3 * width), linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, N, width) -> the same."""
        b, n, width = h.shape
        qkv = self.qkv(h).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(b, n, width))
        return out


class Block(nn.Module):
    """Attention and an MLP, each modulated and gated by time and label (adaLN-Zero)."""

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = layer_norm(width), layer_norm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(linear(width, mlp * width), nn.GELU("tanh"), linear(mlp * width, width))
        self.modulation = zeroed(width, 6 * width)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        """H (B, N, width), told = SiLU(time + label) (B, width) -> (B, N, width)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(told).chunk(6, dim=1)
        h = h + gate1[:, None] * self.attention(modulated(self.norm1(h), shift1, scale1))
        out: Tensor = h + gate2[:, None] * self.mlp(modulated(self.norm2(h), shift2, scale2))
        return out


class Last(nn.Module):
    """From tokens to the pixels of their patches; starts at zero."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm = layer_norm(width)
        self.modulation, self.linear = zeroed(width, 2 * width), zeroed(width, outputs)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        """H (B, N, width), told (B, width) -> (B, N, outputs)."""
        shift, scale = self.modulation(told).chunk(2, dim=1)
        out: Tensor = self.linear(modulated(self.norm(h), shift, scale))
        return out
