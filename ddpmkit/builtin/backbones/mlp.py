"""A residual network of linear layers, for vectors and tiny images: it knows nothing of neighbouring pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ddpmkit import Backbone, ImageSize, param

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Mlp(Backbone):
    """Residual network of linear layers on all pixels as one vector, for vectors and tiny images.

    Time and label enter each block as a shift; each block, and so the network, starts at zero.
    """

    name = "mlp"
    reference = "residual blocks: He et al. 2016 (arXiv 1512.03385); time as in Ho et al. 2020, appendix B"
    non_square = True
    width: int = param(128, "numbers between the layers", ge=4)
    depth: int = param(3, "residual blocks of two layers each", ge=1)

    def build(
        self, *, in_channels: int, out_channels: int, image_size: ImageSize, num_classes: int | None = None
    ) -> nn.Module:
        """Return the network, ``forward(x, t, y=None)``: x (B, C, H, W) of any H and W, 1 and 1 of a vector.

        With K classes, y is (B,) in 0 .. K, where K and None mean no label.
        """
        from ddpmkit.builtin.backbones._mlp import MLPModule

        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        pixels = height * width
        return MLPModule(in_channels * pixels, out_channels * pixels, num_classes, **asdict(self))
