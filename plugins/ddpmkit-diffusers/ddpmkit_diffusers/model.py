"""The networks as torch modules; imported only when one is built, or by diffusers when it loads a folder."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers import ModelMixin as ModelMixin
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn


class Told(nn.Module):
    """A UNet2DModel that is told the time and the label as ddpmkit tells them: forward(x, t, y=None)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.unet = UNet2DModel(**config)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """X (B, C, H, W), t float32 (B,) in [0, 1000), y int64 (B,) in 0 .. K or None for K -> (B, outputs, H, W)."""
        out: Tensor = self.unet(x, t, class_labels=labels(self.unet, y, len(x))).sample
        return out


class DdpmkitUNet2DModel(UNet2DModel):  # type: ignore[misc]
    """A UNet2DModel with what ddpmkit's ``unet`` has and UNet2DModel can't say in its configuration.

    Args:
        norm_groups: (channels, groups) of its GroupNorms, where they are not all of as many groups.
        heads: of each attention; None for what ``attention_head_dim`` says.
        time_scale: by which a timestep is multiplied, 1000 / T.
        octaves: n of the Fourier features sin(2^n pi x), cos(2^n pi x) of the pixels.
        patch: side of the squares of pixels that become channels.
        config: what UNet2DModel takes. With ``num_class_embeds``, no label is the last one.
    """

    def __init__(
        self,
        norm_groups: Sequence[Sequence[int]] = (),
        heads: int | None = None,
        time_scale: float = 1.0,
        octaves: Sequence[int] = (),
        patch: int = 1,
        **config: Any,
    ) -> None:
        super().__init__(**config)
        extra = {"norm_groups": norm_groups, "heads": heads, "time_scale": time_scale, "octaves": octaves}
        self.register_to_config(**extra, patch=patch)
        groups = {int(c): int(g) for c, g in norm_groups}
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = groups.get(module.num_channels, module.num_groups)
            if isinstance(module, Attention) and heads is not None:
                module.heads, module.scale = heads, (module.inner_dim // heads) ** -0.5
        if octaves or patch > 1:
            own: Any = self
            first, last = own.conv_in, own.conv_out
            seen = first.in_channels * (1 + 2 * len(octaves)) * patch**2
            self.conv_in = _First(seen, first.out_channels, octaves, patch)
            self.conv_out = _Last(last.in_channels, last.out_channels * patch**2, patch)

    def forward(
        self, sample: Tensor, timestep: Any, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> Any:
        """As of UNet2DModel: ``sample`` (B, C, H, W), ``timestep`` a number or (B,); a label may be left out."""
        told, y = timestep * self.config.time_scale, labels(self, class_labels, len(sample))
        return super().forward(sample, told, class_labels=y, return_dict=return_dict)


def _signature() -> inspect.Signature:
    """UNet2DModel's with ours: diffusers reads from it which entries of a configuration are given."""
    own = list(inspect.signature(DdpmkitUNet2DModel.__init__).parameters.values())
    theirs = list(inspect.signature(UNet2DModel.__init__).parameters.values())[1:]
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own[1:-1], *theirs)]
    return inspect.Signature([own[0], *keywords])


DdpmkitUNet2DModel.__init__.__signature__ = _signature()  # type: ignore[attr-defined]
DdpmkitUNet2DModel.__module__ = "ddpmkit_diffusers"  # by which a folder names it


class _First(nn.Conv2d):
    """The first convolution, over Fourier features and patches of the pixels."""

    def __init__(self, channels: int, width: int, octaves: Sequence[int], patch: int) -> None:
        super().__init__(channels, width, 3, padding=1)
        self.octaves, self.patch = tuple(octaves), patch

    def forward(self, x: Tensor) -> Tensor:
        phases = [(2.0**n * math.pi) * x for n in self.octaves]
        x = torch.cat([x, *(f.sin() for f in phases), *(f.cos() for f in phases)], dim=1)
        return super().forward(F.pixel_unshuffle(x, self.patch))


class _Last(nn.Conv2d):
    """The last convolution, whose channels become the pixels of patches."""

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__(width, channels, 3, padding=1)
        self.patch = patch

    def forward(self, h: Tensor) -> Tensor:
        return F.pixel_shuffle(super().forward(h), self.patch)


def labels(net: Any, y: Tensor | None, count: int) -> Tensor | None:
    """The labels that a UNet2DModel is told: of one that was built with some, none is the last."""
    if net.class_embedding is None or y is not None:
        return y
    none = net.class_embedding.num_embeddings - 1
    return torch.full((count,), none, device=net.class_embedding.weight.device)
