"""The component: what a DiT's parameters are, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ddpmkit import Backbone, DdpmkitError, ImageSize, param

if TYPE_CHECKING:
    from torch import nn

SIZES: dict[str, dict[str, Any]] = {  # Peebles & Xie 2023, Table 1; never changed, like the paper
    "s": {"depth": 12, "width": 384, "heads": 6},
    "b": {"depth": 12, "width": 768, "heads": 12},
    "l": {"depth": 24, "width": 1024, "heads": 16},
    "xl": {"depth": 28, "width": 1152, "heads": 16},
}


@dataclass(frozen=True)
class DiT(Backbone):
    """Diffusion transformer: patches as tokens, time and label as adaLN-Zero.

    Each block is h + g1 attention(m(LN(h); s1, b1)), then h + g2 mlp(m(LN(h); s2, b2)) with m(h; s, b) = h (1 + s) + b;
    the six vectors are linear in SiLU(time + label) and start at zero, so that each block starts as the identity.
    The published sizes by name: dit:size=s:patch=2 is DiT-S/2. A name gives the parameters that are not written.
    """

    name = "dit"
    reference = "Peebles & Xie 2023 (arXiv 2212.09748), section 3.2 and Table 1; their code"
    non_square = True
    patch: int = param(2, "side of the squares of pixels that become a token", ge=1)
    width: int = param(64, "numbers of a token, a multiple of 4 and of heads", ge=4)
    depth: int = param(3, "blocks", ge=1)
    heads: int = param(4, "attention heads", ge=1)
    mlp: int = param(4, "hidden numbers of each block's MLP, in widths", ge=1)
    size: Literal["s", "b", "l", "xl"] | None = param(
        None, "a published network by name: it gives the parameters that are not written", fills=SIZES
    )

    def build(
        self, *, in_channels: int, out_channels: int, image_size: ImageSize, num_classes: int | None = None
    ) -> nn.Module:
        """Return the network, ``forward(x, t, y=None)``: x (B, C, H, W), t float32 (B,) in [0, 1000), y int64 or None.

        Raises:
            DdpmkitError: when the patches do not tile the image, or the width does not divide.
        """
        height, across = (image_size, image_size) if isinstance(image_size, int) else image_size
        if height % self.patch or across % self.patch:
            raise DdpmkitError(
                f"dit: patch={self.patch} does not divide an image of size {height}x{across}", "as in dit:patch=1"
            )
        if self.width % 4 or self.width % self.heads:
            raise DdpmkitError(
                f"dit: width={self.width} must be a multiple of 4 and of heads={self.heads}",
                f"as in dit:width={16 * self.heads}:heads={self.heads}",
            )
        from ddpmkit_dit.network import DiTModule

        return DiTModule(
            in_channels, out_channels, (height // self.patch, across // self.patch), num_classes, patch=self.patch,
            width=self.width, depth=self.depth, heads=self.heads, mlp=self.mlp,
        )  # fmt: skip
