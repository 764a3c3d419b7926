"""Networks as the checks of a backbone see them: built, with parameters moved off zero, and shown noise."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ddpmkit.plugin.interfaces import Backbone, ImageSize

SIZES = (8, 16, 32)  # the first that it takes
CLOSE = 1e-4  # of outputs of one network, far above the rounding of another order of sums


@dataclass(frozen=True, eq=False)
class Tried:
    """A network with moved parameters and without dropout, and what it is shown: (4, C, H, W) and times (4,)."""

    net: nn.Module
    x: Tensor
    t: Tensor

    def __call__(self, x: Tensor | None = None, t: Tensor | None = None) -> Tensor:
        """Return its answer; what draws random numbers draws the same ones."""
        import torch

        torch.manual_seed(0)
        out: Tensor = self.net(self.x if x is None else x, self.t if t is None else t)
        return out


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs are one but for rounding."""
    scale = float(b.abs().max())
    return bool(((a - b).abs() <= CLOSE * (1 + scale)).all())


@functools.lru_cache(maxsize=16)
def smallest(backbone: Backbone) -> int:
    """Return the smallest size that it takes: one may need images that can be halved often.

    Raises:
        DdpmkitError: what it says of the last, where it takes none.
    """
    import torch

    refusals = []
    for size in SIZES:
        try:
            tried = tried_out(backbone, size, 1, 1)
            with torch.no_grad():
                tried()
        except (DdpmkitError, RuntimeError, ValueError) as err:
            refusals.append(err)
        else:
            return size
    raise refusals[-1]


def built(
    backbone: Backbone,
    size: ImageSize,
    channels: int,
    out_channels: int,
    num_classes: int | None = None,
    *,
    seed: int = 0,
) -> nn.Module:
    """Build a network, which draws its own first weights from a seed."""
    import torch

    torch.manual_seed(seed)
    return contract.network(
        backbone, in_channels=channels, out_channels=out_channels, image_size=size, num_classes=num_classes
    )


def tried_out(
    backbone: Backbone,
    size: ImageSize,
    channels: int,
    out_channels: int,
    num_classes: int | None = None,
    *,
    seed: int = 0,
) -> Tried:
    """Build a network, move its parameters, end its dropout, and make images and times for it."""
    import torch

    net = built(backbone, size, channels, out_channels, num_classes, seed=seed)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad and p.is_floating_point():
                p.add_(0.1 * torch.randn(p.shape, generator=draws, dtype=p.dtype))
    for layer, rate in contract.dropout_layers(net):
        setattr(layer, rate, 0.0)
    height, width = (size, size) if isinstance(size, int) else size
    x = torch.randn((4, channels, height, width), generator=draws)
    return Tried(net, x, torch.tensor([0.0, 250.0, 500.0, 999.0]))
