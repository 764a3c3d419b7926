"""ddpmkit's ``unet`` and diffusers' UNet2DModel as one network: its configuration there, and each layer's two names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpmkit import Backbone, ImageSize

if TYPE_CHECKING:
    from torch import Tensor, nn

EPSILON = {"ho": 1e-6, "improved": 1e-5}
NAMES = {"norm1": "norm1", "conv1": "conv1", "time_emb_proj": "time", "norm2": "norm2", "conv2": "conv2",
         "conv_shortcut": "skip"}  # fmt: skip
ENDS = {"time_embedding.linear_1": "embed.0", "time_embedding.linear_2": "embed.2", "conv_in": "conv_in",
        "conv_norm_out": "norm_out", "conv_out": "conv_out", "class_embedding": "labels"}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What a network is built for.

    Attributes:
        channels: of an image.
        outputs: channels of the answer.
        size: the side of square images, or (H, W).
        classes: K of the labels; None without.
        T: steps of the chain.
    """

    channels: int
    outputs: int
    size: ImageSize
    classes: int | None = None
    T: int = 1000


def attends(unet: Any, names: Iterable[str]) -> list[bool]:
    """Whether there is self-attention at each resolution of a ``unet``, by the names of its weights, ours or theirs."""
    names = set(names)
    ours = [f"down.{level * (unet.blocks + 1)}.attention.qkv.weight" for level in range(len(unet.mults))]
    theirs = [f"down_blocks.{level}.attentions.0.to_q.weight" for level in range(len(unet.mults))]
    return [bool(names & set(pair)) for pair in zip(ours, theirs, strict=True)]


def norm_groups(net: nn.Module) -> dict[int, int]:
    """Channels -> groups, of all GroupNorms of a network; one of ddpmkit has as many wherever there are as many."""
    from torch.nn import GroupNorm

    return {m.num_channels: m.num_groups for m in net.modules() if isinstance(m, GroupNorm)}


def configuration(unet: Any, net: nn.Module, told: Told) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what UNet2DModel takes for a ``unet``, and what only DdpmkitUNet2DModel does; the second often empty.

    Args:
        unet: The component.
        net: Its network.
        told: What it was built for.
    """
    widths, ho = [unet.channels * m for m in unet.mults], unet.details == "ho"
    at = attends(unet, net.state_dict())
    groups, extra = norm_groups(net), {}
    heads, attending = (
        None,
        {w for w, a in zip(widths, at, strict=True) if a} | ({widths[-1]} if unet.middle_attention else set()),
    )
    if unet.heads > 1 and len(attending) == 1:
        heads = attending.pop() // unet.heads  # channels of one
    elif unet.heads > 1 and attending:
        extra["heads"] = unet.heads
    if len(set(groups.values())) > 1:
        extra["norm_groups"] = sorted(map(list, groups.items()))
    if told.T != 1000:
        extra["time_scale"] = 1000 / told.T
    if unet.fourier:
        extra["octaves"] = list(unet.octaves)
    if unet.patch > 1:
        extra["patch"] = unet.patch
    # A number of groups that divides all channels, until norm_groups replaces it.
    every = next(iter(groups.values())) if "norm_groups" not in extra else 4
    config = {
        "sample_size": told.size if isinstance(told.size, int) else list(told.size),
        "in_channels": told.channels,
        "out_channels": told.outputs,
        "block_out_channels": widths,
        "layers_per_block": unet.blocks,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in at],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(at)],
        "add_attention": unet.middle_attention,
        "attention_head_dim": heads,
        "norm_num_groups": every,
        "attn_norm_num_groups": every,  # left out it would be no norm at all where time is a scale and a shift
        "norm_eps": EPSILON[unet.details],
        "resnet_time_scale_shift": "scale_shift" if unet.time == "scale-shift" else "default",
        "flip_sin_to_cos": not ho,
        "freq_shift": int(ho),
        "downsample_padding": 0 if ho else 1,
        "num_class_embeds": None if told.classes is None else told.classes + 1,
    }
    if told.classes is not None:
        extra.setdefault("time_scale", 1.0)  # UNet2DModel itself refuses to be told no label, as DDPMPipeline does
    return config, extra


def pairs(unet: Any, at: list[bool]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (theirs, ours): the names of layers with equal weights, and those of attentions."""
    levels = len(unet.mults)
    blocks, attentions, layers, place = [], [], list(ENDS.items()), 0
    for level in range(levels):
        for i in range(unet.blocks):
            blocks.append((f"down_blocks.{level}.resnets.{i}", f"down.{place}.block"))
            attentions += [(f"down_blocks.{level}.attentions.{i}", f"down.{place}.attention")] if at[level] else []
            place += 1
        if level < levels - 1:
            layers.append((f"down_blocks.{level}.downsamplers.0.conv", f"down.{place}"))
            place += 1
    blocks += [("mid_block.resnets.0", "middle1.block"), ("mid_block.resnets.1", "middle2.block")]
    attentions += [("mid_block.attentions.0", "middle1.attention")] if unet.middle_attention else []
    place = 0
    for up, level in enumerate(reversed(range(levels))):
        for i in range(unet.blocks + 1):
            blocks.append((f"up_blocks.{up}.resnets.{i}", f"up.{place}.block"))
            attentions += [(f"up_blocks.{up}.attentions.{i}", f"up.{place}.attention")] if at[level] else []
            place += 1
        if level > 0:
            layers.append((f"up_blocks.{up}.upsamplers.0.conv", f"up.{place}"))
            place += 1
    layers += [(f"{a}.{x}", f"{b}.{y}") for a, b in blocks for x, y in NAMES.items()]
    layers += [(f"{a}.group_norm", f"{b}.norm") for a, b in attentions]
    return layers, attentions


def to_diffusers(ours: Mapping[str, Tensor], unet: Any) -> dict[str, Tensor]:
    """Return a ``unet``'s weights under UNet2DModel's names: one 1x1 convolution is three linear maps there."""
    layers, attentions = pairs(unet, attends(unet, ours))
    out: dict[str, Tensor] = {}
    left = dict(ours)
    for kind in ("weight", "bias"):
        out |= {f"{a}.{kind}": left.pop(f"{b}.{kind}") for a, b in layers if f"{b}.{kind}" in left}
        for a, b in attentions:
            maps = [*left.pop(f"{b}.qkv.{kind}").flatten(1 if kind == "weight" else 0).chunk(3)]
            maps.append(left.pop(f"{b}.proj.{kind}").flatten(1 if kind == "weight" else 0))
            names = ("to_q", "to_k", "to_v", "to_out.0")
            out |= {f"{a}.{name}.{kind}": w.clone() for name, w in zip(names, maps, strict=True)}
    return _all(out, left)


def from_diffusers(theirs: Mapping[str, Tensor], unet: Any) -> dict[str, Tensor]:
    """Return a UNet2DModel's weights under the names of ``unet``; the inverse of :func:`to_diffusers`."""
    import torch

    layers, attentions = pairs(unet, attends(unet, theirs))
    out: dict[str, Tensor] = {}
    left = dict(theirs)
    for kind in ("weight", "bias"):
        out |= {f"{b}.{kind}": left.pop(f"{a}.{kind}") for a, b in layers if f"{a}.{kind}" in left}
        for a, b in attentions:
            qkv = torch.cat([left.pop(f"{a}.to_{x}.{kind}") for x in "qkv"])
            for name, w in (("qkv", qkv), ("proj", left.pop(f"{a}.to_out.0.{kind}"))):
                out[f"{b}.{name}.{kind}"] = w[..., None, None] if kind == "weight" else w
    return _all(out, left)


def _all(out: dict[str, Tensor], left: dict[str, Tensor]) -> dict[str, Tensor]:
    if left:
        raise RuntimeError(f"weights without a counterpart: {', '.join(left)}")  # a defect here, not the user's
    return out


def is_unet(backbone: Backbone) -> bool:
    """Whether a component is ddpmkit's own ``unet``."""
    return backbone.name == "unet" and type(backbone).__module__.startswith("ddpmkit.builtin.")
