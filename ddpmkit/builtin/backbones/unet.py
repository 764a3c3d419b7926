"""The U-Net of DDPM: position embedding, ResNet blocks with GroupNorm, attention where asked, zero-initialised ends."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from ddpmkit import Backbone, DdpmkitError, param

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class UNet(Backbone):
    """U-Net with time-conditioned ResNet blocks; its size, depth and attention are parameters.

    Time enters each block as a scale and a shift after GroupNorm. Fourier input features sin(2^n pi x), cos(2^n pi x)
    let the network see differences of one grey level; they decide the NLL of small images.
    """

    name = "unet"
    reference = (
        "Ho et al. 2020 (arXiv 2006.11239), appendix B; scale-shift norm: Nichol & Dhariwal 2021, section 3; "
        "Fourier features: Kingma et al. 2021 (arXiv 2107.00630), section 5.2"
    )
    channels: int = param(16, "channels at full resolution, a multiple of 4", ge=4)
    mults: tuple[int, ...] = param((1, 2), "channel multiple of each resolution, halving in between", ge=1)
    blocks: int = param(1, "ResNet blocks at each resolution on the way down", ge=1)
    attention: tuple[int, ...] = param((), "resolutions with self-attention, besides the middle", ge=1)
    middle_attention: bool = param(True, "self-attention in the middle block")
    heads: int = param(1, "attention heads", ge=1)
    fourier: bool = param(False, "add Fourier features of the input")
    octaves: tuple[int, ...] = param((3, 4), "Fourier octaves n; 7/8 suits 256 grey levels, 3/4 suits 17", ge=0)

    def build(
        self, *, in_channels: int, out_channels: int, image_size: int, num_classes: int | None = None
    ) -> nn.Module:
        """Return the network, ``forward(x, t, y=None)``: x (B, C, H, W), t float32 (B,) in [0, 1000), y int64 or None.

        Of ``num_classes`` K classes, y = K and None both say: no label.

        Raises:
            DdpmkitError: when the image can't be halved that often, or the channels don't divide.
        """
        halvings = len(self.mults) - 1
        if not self.mults:
            raise DdpmkitError(
                "unet: mults is empty; it needs one multiple for each resolution", self._works(image_size)
            )
        if image_size % 2**halvings or image_size < 2**halvings:
            raise DdpmkitError(
                f"unet: an image of size {image_size} can't be halved {halvings} times (mults has {len(self.mults)})",
                f"give fewer mults, {self._works(image_size)}",
            )
        if self.channels % 4 or any(self.channels * m % self.heads for m in self.mults):
            raise DdpmkitError(
                f"unet: channels={self.channels} must be a multiple of 4 and heads={self.heads} must divide it",
                self._works(image_size),
            )
        resolutions = [image_size >> level for level in range(halvings + 1)]
        if not set(self.attention) <= set(resolutions):
            have = ", ".join(map(str, resolutions))
            raise DdpmkitError(
                f"unet: attention at {'/'.join(map(str, self.attention))}, and the resolutions are {have}",
                self._works(image_size),
            )
        from ddpmkit.builtin.backbones._unet import UNetModule

        return UNetModule(in_channels, out_channels, image_size, num_classes, **asdict(self))

    def _works(self, image_size: int) -> str:
        """Name the network nearest to this one that fits images of a size."""
        halvings = (image_size & -image_size).bit_length() - 1  # how often 2 divides it
        mults = (self.mults or (1, 2))[: halvings + 1]
        resolutions = [image_size >> level for level in range(len(mults))]
        attention = tuple(r for r in self.attention if r in resolutions)
        if self.attention and not attention:
            attention = (resolutions[-1],)
        unit = math.lcm(4, self.heads)
        channels = -(-self.channels // unit) * unit
        return f"as in {replace(self, mults=mults, attention=attention, channels=channels)}"
