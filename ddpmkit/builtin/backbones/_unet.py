"""The U-Net as torch modules; imported only when a network is built."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddpmkit import group_norm_silu
from ddpmkit.builtin.backbones._layers import Labels, position_embedding, zero

EPSILON = {"improved": 1e-5, "ho": 1e-6}  # GroupNorm's, by whose details they are


def group_norm(channels: int, details: str) -> nn.GroupNorm:
    """32 groups as in DDPM where there are channels enough, else 4 channels a group."""
    groups = math.gcd(32 if channels >= 128 else channels // 4, channels)
    return nn.GroupNorm(groups, channels, eps=EPSILON[details])


class HoDownsample(nn.Conv2d):
    """The halving convolution as Ho et al. pad it: one row below and one column to the right, none before."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def downsample(channels: int, details: str) -> nn.Conv2d:
    """A convolution that halves the resolution."""
    return HoDownsample(channels) if details == "ho" else nn.Conv2d(channels, channels, 3, stride=2, padding=1)


class ResBlock(nn.Module):
    """norm, SiLU, conv, time, norm, SiLU, dropout, zeroed conv; plus the skip.

    Time is a shift before the second norm (Ho et al. 2020), or a scale and a shift behind it (Nichol & Dhariwal 2021).
    """

    def __init__(self, cin: int, cout: int, width: int, time: str, details: str) -> None:
        super().__init__()
        self.scales = time == "scale-shift"
        self.norm1, self.conv1 = group_norm(cin, details), nn.Conv2d(cin, cout, 3, padding=1)
        self.time = nn.Linear(width, 2 * cout if self.scales else cout)
        self.norm2, self.dropout = group_norm(cout, details), nn.Dropout(0.0)
        self.conv2 = zero(nn.Conv2d(cout, cout, 3, padding=1))
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, cin, H, W), (B, width) -> (B, cout, H, W)."""
        h = self.conv1(group_norm_silu(self.norm1, x))
        time = self.time(emb)
        if self.scales:
            scale, shift = time.chunk(2, dim=1)
            h = group_norm_silu(self.norm2, h, scale=scale, shift=shift)
        else:
            h = group_norm_silu(self.norm2, h, before=time)
        out: Tensor = self.skip(x) + self.conv2(self.dropout(h))
        return out


class Attention(nn.Module):
    """Self-attention over all pixels, with a zeroed projection."""

    def __init__(self, channels: int, heads: int, details: str) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels, details)
        self.qkv, self.proj = nn.Conv2d(channels, 3 * channels, 1), zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        b, c, h, w = x.shape
        qkv = (
            self.qkv(group_norm_silu(self.norm, x, silu=False))
            .reshape(b, 3, self.heads, c // self.heads, h * w)
            .transpose(-1, -2)
        )
        mixed = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        out: Tensor = x + self.proj(mixed.transpose(-1, -2).reshape(b, c, h, w))
        return out


class Level(nn.Module):
    """A ResNet block, with attention behind it where asked."""

    def __init__(self, cin: int, cout: int, width: int, heads: int | None, *, time: str, details: str) -> None:
        super().__init__()
        self.block = ResBlock(cin, cout, width, time, details)
        self.attention = Attention(cout, heads, details) if heads else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor, skip: Tensor | None = None) -> Tensor:
        """X and skip, cin channels together, (B, width) -> (B, cout, H, W)."""
        x = x if skip is None else torch.cat([x, skip], dim=1)
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
        time: str,
        details: str,
        checkpoint: bool,
        patch: int,
    ) -> None:
        super().__init__()
        self.channels, self.octaves = channels, octaves if fourier else ()
        self.sines_first, self.checkpoint, self.patch = details == "ho", checkpoint, patch
        width = 4 * channels
        self.embed = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = Labels(classes, width) if classes is not None else None
        self.conv_in = nn.Conv2d(cin * (1 + 2 * len(self.octaves)) * patch**2, channels, 3, padding=1)

        def level_of(cin: int, cout: int, attends: bool) -> Level:
            return Level(cin, cout, width, heads if attends else None, time=time, details=details)

        here, resolution, skips = channels, size, [channels]
        self.down = nn.ModuleList()
        for level, mult in enumerate(mults):
            for _ in range(blocks):
                self.down.append(level_of(here, channels * mult, resolution in attention))
                here = channels * mult
                skips.append(here)
            if level < len(mults) - 1:
                self.down.append(downsample(here, details))
                skips.append(here)
                resolution //= 2

        self.middle1 = level_of(here, here, middle_attention)
        self.middle2 = level_of(here, here, False)

        self.up = nn.ModuleList()
        for level, mult in reversed(list(enumerate(mults))):
            for _ in range(blocks + 1):
                self.up.append(level_of(here + skips.pop(), channels * mult, resolution in attention))
                here = channels * mult
            if level > 0:
                self.up.append(nn.Conv2d(here, here, 3, padding=1))
                resolution *= 2

        self.norm_out = group_norm(here, details)
        self.conv_out = zero(nn.Conv2d(here, cout * patch**2, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """X (B, cin, H, W), t float32 (B,) in [0, 1000), y int64 (B,) or None -> (B, cout, H, W)."""
        emb = self.embed(position_embedding(t, self.channels, sines_first=self.sines_first).to(x.dtype))
        if self.labels is not None:
            emb = emb + self.labels.of(y, len(x))
        emb = F.silu(emb)
        if self.octaves:
            phases = [(2.0**n * math.pi) * x for n in self.octaves]
            x = torch.cat([x, *(f.sin() for f in phases), *(f.cos() for f in phases)], dim=1)
        h = self.conv_in(F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        skips = [h]
        for layer in self.down:
            h = self.run(layer, h, emb) if isinstance(layer, Level) else layer(h)
            skips.append(h)
        h = self.run(self.middle2, self.run(self.middle1, h, emb), emb)
        for layer in self.up:
            if isinstance(layer, Level):
                h = self.run(layer, h, emb, skips.pop())
            else:
                h = layer(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        out: Tensor = self.conv_out(group_norm_silu(self.norm_out, h))
        return F.pixel_shuffle(out, self.patch) if self.patch > 1 else out

    def run(self, level: Level, *given: Tensor) -> Tensor:
        """Run a level; with checkpointing, what is inside it is computed again when the gradient needs it.

        The gradient's graph is the same and dropout draws the same, so no number changes (Chen et al. 2016).
        """
        if self.checkpoint and self.training and torch.is_grad_enabled():
            # The random state, which nobody may read while a GPU records, is read only where something draws from it.
            draws = level.block.dropout.p > 0
            again: Tensor = checkpoint(level, *given, use_reentrant=False, preserve_rng_state=draws)
            return again
        out: Tensor = level(*given)
        return out
