"""The U-Net of DDPM: position embedding, ResNet blocks with GroupNorm, attention where asked, zero-initialised ends."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ddpmkit import Backbone, DdpmkitError, ImageSize, param

if TYPE_CHECKING:
    from torch import nn


SIZES: dict[str, dict[str, Any]] = {  # published networks for 32x32 images; never changed, like the papers
    "ho-cifar10": {
        "channels": 128, "mults": (1, 2, 2, 2), "blocks": 2, "attention": (16,), "middle_attention": True, "heads": 1,
        "time": "shift", "details": "ho", "patch": 1,
    },
    "improved-cifar10": {
        "channels": 128, "mults": (1, 2, 2, 2), "blocks": 3, "attention": (16, 8), "middle_attention": True, "heads": 4,
        "time": "scale-shift", "details": "improved", "patch": 1,
    },
}  # fmt: skip


@dataclass(frozen=True)
class UNet(Backbone):
    """U-Net with time-conditioned ResNet blocks; its size, depth and attention are parameters.

    Time enters each block as a scale and a shift after GroupNorm, or as a shift before it. Fourier input features
    sin(2^n pi x), cos(2^n pi x) let the network see differences of one grey level; they decide the NLL of small images.
    Sizes by name: ho-cifar10 is the network of Ho et al. (35.7 million parameters; trained with --dropout 0.1),
    improved-cifar10 that of Nichol & Dhariwal (52.5 million; --dropout 0.3). A name gives the parameters that are not
    written, and what is written stands: unet:size=ho-cifar10:time=scale-shift. Weights start as torch's layers do.
    """

    name = "unet"
    reference = (
        "Ho et al. 2020 (arXiv 2006.11239), appendix B; scale-shift norm: Nichol & Dhariwal 2021, section 3; "
        "Fourier features: Kingma et al. 2021 (arXiv 2107.00630), section 5.2; checkpointing: Chen et al. 2016 "
        "(arXiv 1604.06174); patch: Luhman & Luhman 2022 (arXiv 2207.04316)"
    )
    non_square = True
    channels: int = param(16, "channels at full resolution, a multiple of 4", ge=4)
    mults: tuple[int, ...] = param((1, 2), "channel multiple of each resolution, halving in between", ge=1)
    blocks: int = param(1, "ResNet blocks at each resolution on the way down", ge=1)
    attention: tuple[int, ...] = param(
        (),
        "resolutions with self-attention, besides the middle; the longer side counts where they differ",
        ge=1,
    )
    middle_attention: bool = param(True, "self-attention in the middle block")
    heads: int = param(1, "attention heads", ge=1)
    fourier: bool = param(False, "add Fourier features of the input")
    octaves: tuple[int, ...] = param((3, 4), "Fourier octaves n; 7/8 suits 256 grey levels, 3/4 suits 17", ge=0)
    time: Literal["scale-shift", "shift"] = param(
        "scale-shift", "how time enters a block: scale and shift after GroupNorm, or shift before", before="scale-shift"
    )
    details: Literal["improved", "ho"] = param(
        "improved",
        "whose code settles the rest: embedding of t (cosines first, or sines with the last frequency at 1/10000), "
        "padding of the halving convolution (both sides, or the far one), GroupNorm's epsilon (1e-5, or 1e-6)",
        before="improved",
    )
    patch: int = param(
        1, "side of the squares of pixels that become channels before the network, and pixels again behind it: "
        "resolutions count from the image's side over this", ge=1, before=1,
    )  # fmt: skip
    size: Literal["ho-cifar10", "improved-cifar10"] | None = param(
        None, "a published network by name: it gives the parameters that are not written", fills=SIZES
    )
    checkpoint: bool = param(
        False, "spare memory: compute each level again for the gradient, up to a third more time, same numbers",
        spares=True,
    )  # fmt: skip

    def build(
        self, *, in_channels: int, out_channels: int, image_size: ImageSize, num_classes: int | None = None
    ) -> nn.Module:
        """Return the network, ``forward(x, t, y=None)``: x (B, C, H, W), t float32 (B,) in [0, 1000), y int64 or None.

        With K classes, y is (B,) in 0 .. K, where K and None mean no label.

        Raises:
            DdpmkitError: when the image can't be halved that often, or the channels don't divide.
        """
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        if any(side % self.patch for side in sides):
            raise DdpmkitError(
                f"unet: patch={self.patch} does not divide an image of size {sides[0]}x{sides[1]}",
                f"as in {replace(self, patch=math.gcd(*sides, self.patch))}",
            )
        shown = f"{image_size}" if isinstance(image_size, int) else f"{sides[0]}x{sides[1]}"
        if self.patch > 1:
            shown += f", {self.patch}x{self.patch} pixels a patch,"
        sides = (sides[0] // self.patch, sides[1] // self.patch)
        halvings = len(self.mults) - 1
        if not self.mults:
            raise DdpmkitError("unet: mults is empty; it needs one multiple for each resolution", self._works(sides))
        if any(side % 2**halvings for side in sides):
            raise DdpmkitError(
                f"unet: an image of size {shown} can't be halved {halvings} times (mults has {len(self.mults)})",
                f"give fewer mults, {self._works(sides)}",
            )
        if self.channels % 4 or any(self.channels * m % self.heads for m in self.mults):
            raise DdpmkitError(
                f"unet: channels={self.channels} must be a multiple of 4 and heads={self.heads} must divide it",
                self._works(sides),
            )
        resolutions = [max(sides) >> level for level in range(halvings + 1)]
        if not set(self.attention) <= set(resolutions):
            have = ", ".join(map(str, resolutions))
            raise DdpmkitError(
                f"unet: attention at {'/'.join(map(str, self.attention))}, and the resolutions are {have}",
                self._works(sides),
            )
        from ddpmkit.builtin.backbones._unet import UNetModule

        stated = asdict(self)
        del stated["size"]  # its parameters say it
        return UNetModule(in_channels, out_channels, max(sides), num_classes, **stated)

    def _works(self, sides: tuple[int, int]) -> str:
        """Name the network nearest to this one that fits images of a size."""
        halvings = min((side & -side).bit_length() - 1 for side in sides)  # how often 2 divides both
        mults = (self.mults or (1, 2))[: halvings + 1]
        resolutions = [max(sides) >> level for level in range(len(mults))]
        attention = tuple(r for r in self.attention if r in resolutions)
        if self.attention and not attention:
            attention = (min(resolutions, key=lambda r: abs(r - max(self.attention))),)
        unit = math.lcm(4, self.heads)
        channels = -(-self.channels // unit) * unit
        return f"as in {replace(self, mults=mults, attention=attention, channels=channels)}"
