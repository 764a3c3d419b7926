"""The component: any UNet2DModel, its configuration as parameters."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ddpmkit import Backbone, DdpmkitError, ImageSize, param

if TYPE_CHECKING:
    from torch import nn

# What a configuration says and the data, the labels, the study or nobody does: no parameters.
TOLD = {
    "sample_size", "in_channels", "out_channels", "class_embed_type", "num_class_embeds", "num_train_timesteps",
    "dropout", "time_embedding_type",
}  # fmt: skip


@dataclass(frozen=True)
class Diffusers(Backbone):
    """UNet2DModel of diffusers; every entry of its configuration is a parameter of the same name.

    Images, labels and outputs are the study's, and so is dropout (--dropout). The defaults are a small one, with the
    block types, widths and group norms that 8x8 digits want; the others are those of diffusers.
    """

    name = "diffusers"
    reference = "diffusers, UNet2DModel; Ho et al. 2020 (arXiv 2006.11239), appendix B"
    non_square = True
    block_out_channels: tuple[int, ...] = param((16, 32), "channels at each resolution", ge=1)
    down_block_types: tuple[str, ...] = param(("DownBlock2D", "DownBlock2D"), "blocks on the way down")
    up_block_types: tuple[str, ...] = param(("UpBlock2D", "UpBlock2D"), "blocks on the way up")
    mid_block_type: Literal["UNetMidBlock2D"] | None = param("UNetMidBlock2D", "the block in the middle")
    layers_per_block: int = param(1, "ResNet blocks at each resolution on the way down", ge=1)
    add_attention: bool = param(True, "self-attention in the middle block")
    attention_head_dim: int | None = param(8, "channels of an attention head; none: one head", ge=1)
    norm_num_groups: int = param(8, "groups of every GroupNorm, a divisor of all channels", ge=1)
    attn_norm_num_groups: int | None = param(None, "groups of the norm before the middle's attention", ge=1)
    norm_eps: float = param(1e-5, "GroupNorm's epsilon", gt=0)
    resnet_time_scale_shift: Literal["default", "scale_shift"] = param("default", "how time enters a ResNet block")
    time_embedding_dim: int | None = param(None, "width of the embedding of t; none: four times the channels", ge=1)
    freq_shift: int = param(0, "1: the last frequency of t is 1/10000", ge=0)
    flip_sin_to_cos: bool = param(True, "cosines first")
    center_input_sample: bool = param(False, "give the network 2x - 1")
    downsample_padding: int = param(
        1, "padding of the halving convolution; 0: one row and column on the far side", ge=0
    )
    downsample_type: Literal["conv", "resnet"] = param("conv", "how the resolution is halved")
    upsample_type: Literal["conv", "resnet"] = param("conv", "how it is doubled")
    mid_block_scale_factor: float = param(1.0, "by which the middle's blocks are divided", gt=0)
    act_fn: Literal["silu", "swish", "mish", "gelu", "relu"] = param("silu", "the activation")

    def build(
        self, *, in_channels: int, out_channels: int, image_size: ImageSize, num_classes: int | None = None
    ) -> nn.Module:
        """Return the network, ``forward(x, t, y=None)``: x (B, C, H, W), t float32 (B,) in [0, 1000), y int64 or None.

        With K classes, y is (B,) in 0 .. K, where K and None mean no label.

        Raises:
            DdpmkitError: when diffusers is not installed, or takes no such configuration for such images.
        """
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        halvings = len(self.block_out_channels) - 1
        if any(side % 2**halvings for side in sides):
            raise DdpmkitError(
                f"diffusers: an image of size {sides[0]}x{sides[1]} can't be halved {halvings} times",
                "give fewer block_out_channels, and as many types of blocks",
            )
        try:
            from ddpmkit_diffusers.model import Told
        except ImportError as err:
            raise DdpmkitError(f"diffusers can't be imported: {err}", "pip install 'diffusers>=0.42'") from err
        config: dict[str, Any] = {
            **dataclasses.asdict(self), "sample_size": image_size, "in_channels": in_channels,
            "out_channels": out_channels, "num_class_embeds": None if num_classes is None else num_classes + 1,
        }  # fmt: skip
        try:
            return Told(config)
        # It checks little, and says of most configurations what its own code stumbled over.
        except (ValueError, TypeError, RuntimeError, NotImplementedError, ZeroDivisionError, IndexError) as err:
            told = " ".join(str(err).split()) or type(err).__name__
            raise DdpmkitError(f"UNet2DModel takes no such configuration: {told}", "ddpmkit show diffusers") from err


def spec_of(place: str | Path) -> str:
    """Return the spec of a UNet2DModel's configuration, such as ``diffusers:block_out_channels=32/64:..``.

    Args:
        place: ``config.json``, a folder that holds it, or one of a pipeline, which holds it in ``unet``.

    Raises:
        DdpmkitError: when there is none, it is of another model, or says what no parameter does.
    """
    from ddpmkit.plugin import spec

    config, fields = read_config(place), {f.name: f.default for f in dataclasses.fields(Diffusers)}
    # An entry that is not written has diffusers' default, which need not be the small one here.
    given = {k: config.get(k, v) for k, v in {**fields, **DEFAULTS}.items()}
    unknown = sorted(k for k in set(config) - set(fields) - TOLD if not k.startswith("_"))
    if unknown:
        raise DdpmkitError(f"'{place}' says {', '.join(unknown)}, which UNet2DModel does not know", "another folder")
    if config.get("time_embedding_type", "positional") != "positional":
        # fourier takes the logarithm of t and divides by it, and t is 0 here; learned wants whole numbers.
        raise DdpmkitError(f"'{place}' is told t as '{config['time_embedding_type']}'", "positional alone is taken")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    raw = {k: spec.encode(v) for k, v in given.items() if v != fields[k]}
    return spec.format(spec.construct(Diffusers, raw, kind="backbone"))


# Those of UNet2DModel that are others than the parameters'.
DEFAULTS: dict[str, Any] = {
    "block_out_channels": (224, 448, 672, 896),
    "down_block_types": ("DownBlock2D", *3 * ("AttnDownBlock2D",)),
    "up_block_types": (*3 * ("AttnUpBlock2D",), "UpBlock2D"),
    "layers_per_block": 2,
    "norm_num_groups": 32,
}


def read_config(place: str | Path) -> dict[str, Any]:
    """Return a UNet2DModel's configuration as it is written.

    Raises:
        DdpmkitError: when there is none, or it is of another model.
    """
    path = Path(place)
    found = next((p for p in (path / "unet/config.json", path / "config.json", path) if p.is_file()), None)
    try:
        config = json.loads(found.read_text(encoding="utf-8")) if found is not None else None
    except (OSError, ValueError) as err:
        raise DdpmkitError(f"can't read '{found}': {err}", "a config.json that diffusers wrote") from None
    if not isinstance(config, dict):
        raise DdpmkitError(
            f"there is no UNet2DModel at '{place}'", "a folder of a DDPMPipeline, or its unet/config.json"
        )
    if config.get("_class_name", "UNet2DModel") not in ("UNet2DModel", "DdpmkitUNet2DModel"):
        raise DdpmkitError(f"'{found}' is of a {config['_class_name']}, and no UNet2DModel", "another folder")
    return config
