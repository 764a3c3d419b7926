"""The U-Net as torch modules; imported only when a network is built."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn


def groups(channels: int) -> int:
    """The number of GroupNorm groups: 32 as in DDPM where there are channels enough, else 4 channels a group."""
    return math.gcd(32 if channels >= 128 else channels // 4, channels)


def zero(module: nn.Conv2d) -> nn.Conv2d:
    """Zero a convolution, so that its block starts as the identity (Ho et al. 2020, code; appendix B)."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


def position_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoids of t in [0, 1000): (B,) -> (B, width), frequencies 10000^(-i / (width/2)), cosines first."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResBlock(nn.Module):
    """norm, SiLU, conv, scale and shift by time, norm, SiLU, dropout, zeroed conv; plus the skip."""

    def __init__(self, cin: int, cout: int, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups(cin), cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.time = nn.Linear(width, 2 * cout)
        self.norm2, self.dropout = nn.GroupNorm(groups(cout), cout), nn.Dropout(0.0)
        self.conv2 = zero(nn.Conv2d(cout, cout, 3, padding=1))
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, cin, H, W), (B, width) -> (B, cout, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        out: Tensor = self.skip(x) + self.conv2(self.dropout(F.silu(h)))
        return out


class Attention(nn.Module):
    """Self-attention over all pixels, with a zeroed projection."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups(channels), channels)
        self.qkv, self.proj = nn.Conv2d(channels, 3 * channels, 1), zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2)
        mixed = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        out: Tensor = x + self.proj(mixed.transpose(-1, -2).reshape(b, c, h, w))
        return out


class Level(nn.Module):
    """A ResNet block, with attention behind it where asked."""

    def __init__(self, cin: int, cout: int, width: int, heads: int | None) -> None:
        super().__init__()
        self.block = ResBlock(cin, cout, width)
        self.attention = Attention(cout, heads) if heads else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, cin, H, W), (B, width) -> (B, cout, H, W)."""
        out: Tensor = self.attention(self.block(x, emb))
        return out


class UNetModule(nn.Module):
    """forward(x, t, y=None); the keywords are the parameters of the component ``unet``, see ``ddpmkit show unet``."""

    def __init__(
        self,
        cin: int,
        cout: int,
        size: int,
        classes: int | None,
        *,
        channels: int,
        mults: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...],
        middle_attention: bool,
        heads: int,
        fourier: bool,
        octaves: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.channels, self.octaves = channels, octaves if fourier else ()
        width = 4 * channels
        self.embed = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = nn.Embedding(classes + 1, width) if classes else None  # the last row says: no label
        self.conv_in = nn.Conv2d(cin * (1 + 2 * len(self.octaves)), channels, 3, padding=1)

        def heads_at(resolution: int) -> int | None:
            return heads if resolution in attention else None

        here, resolution, skips = channels, size, [channels]
        self.down = nn.ModuleList()
        for level, mult in enumerate(mults):
            for _ in range(blocks):
                self.down.append(Level(here, channels * mult, width, heads_at(resolution)))
                here = channels * mult
                skips.append(here)
            if level < len(mults) - 1:
                self.down.append(nn.Conv2d(here, here, 3, stride=2, padding=1))
                skips.append(here)
                resolution //= 2

        self.middle1 = Level(here, here, width, heads if middle_attention else None)
        self.middle2 = Level(here, here, width, None)

        self.up = nn.ModuleList()
        for level, mult in reversed(list(enumerate(mults))):
            for _ in range(blocks + 1):
                self.up.append(Level(here + skips.pop(), channels * mult, width, heads_at(resolution)))
                here = channels * mult
            if level > 0:
                self.up.append(nn.Conv2d(here, here, 3, padding=1))
                resolution *= 2

        self.norm_out = nn.GroupNorm(groups(here), here)
        self.conv_out = zero(nn.Conv2d(here, cout, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """X (B, cin, H, W), t float32 (B,) in [0, 1000), y int64 (B,) from 0 to the classes, which is none, or None."""
        emb = self.embed(position_embedding(t, self.channels).to(x.dtype))
        if self.labels is not None:
            none = self.labels.num_embeddings - 1
            emb = emb + self.labels(torch.full_like(t, none, dtype=torch.int64) if y is None else y)
        emb = F.silu(emb)
        if self.octaves:
            phases = [(2.0**n * math.pi) * x for n in self.octaves]
            x = torch.cat([x, *(f.sin() for f in phases), *(f.cos() for f in phases)], dim=1)
        h = self.conv_in(x)
        skips = [h]
        for layer in self.down:
            h = layer(h, emb) if isinstance(layer, Level) else layer(h)
            skips.append(h)
        h = self.middle2(self.middle1(h, emb), emb)
        for layer in self.up:
            if isinstance(layer, Level):
                h = layer(torch.cat([h, skips.pop()], dim=1), emb)
            else:
                h = layer(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return out
