"""A UNet2DModel out of diffusers, as ddpmkit's ``unet`` with the same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import DdpmkitError, build

from ddpmkit_diffusers.backbone import DEFAULTS, read_config
from ddpmkit_diffusers.layout import Told, configuration, from_diffusers, norm_groups

if TYPE_CHECKING:
    from torch import Tensor, nn

# Of UNet2DModel, where a configuration does not say; and what ddpmkit's unet always is.
ALWAYS: dict[str, Any] = {
    "center_input_sample": False, "time_embedding_type": "positional", "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1, "downsample_type": "conv", "upsample_type": "conv", "act_fn": "silu",
    "class_embed_type": None, "time_embedding_dim": None,
}  # fmt: skip
ELSE: dict[str, Any] = {
    **DEFAULTS, "freq_shift": 0, "flip_sin_to_cos": True, "downsample_padding": 1, "norm_eps": 1e-5,
    "attention_head_dim": 8, "resnet_time_scale_shift": "default", "add_attention": True, "attn_norm_num_groups": None,
    "num_class_embeds": None, "in_channels": 3, "out_channels": 3, "heads": None, "norm_groups": (), "octaves": (),
    "patch": 1, "time_scale": 1.0,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Read:
    """A network out of diffusers.

    Attributes:
        spec: as ``--backbones`` takes it: a network of the same shape.
        network: with its weights, in eval mode; ``forward(x, t, y=None)``, t as ddpmkit tells it, in [0, 1000).
        betas: of the folder's scheduler; empty where there is none.
        prediction: ``eps``, ``x0`` or ``v``.
        time_scale: by which a timestep of the folder's chain is multiplied before the network is told it.
    """

    spec: str
    network: nn.Module
    betas: tuple[float, ...] = ()
    prediction: str = "eps"
    time_scale: float = 1.0

    def predict(self, xt: Tensor, t: Tensor) -> Tensor:
        """Return the network's answer at step ``t`` int64 (B,), as ``ddpmkit.likelihood.bits_per_dim`` asks for it."""
        out: Tensor = self.network(xt, t.float() * self.time_scale)
        return out


def read(folder: str | Path) -> Read:
    """Return the network of a folder that diffusers wrote, as ddpmkit's ``unet``.

    Args:
        folder: Of a DDPMPipeline, or of its UNet2DModel alone; a safetensors file is in it.

    Raises:
        DdpmkitError: when there is none, it is damaged, or is a network that ``unet`` can't be, with what is different.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = {**ALWAYS, **ELSE, **read_config(folder)}
    place = Path(folder) / "unet" if (Path(folder) / "unet").is_dir() else Path(folder)
    unet, told = _unet(config)
    network = unet.build(
        in_channels=told.channels, out_channels=told.outputs, image_size=told.size, num_classes=told.classes
    )
    apart = _differences(config, unet, network, told)
    if apart:
        raise DdpmkitError(
            f"ddpmkit's unet can't be the network of '{folder}': {apart[0]}",
            "the backbone diffusers can: ddpmkit_diffusers.spec_of(FOLDER) is its spec",
        )
    weights = place / "diffusion_pytorch_model.safetensors"
    try:
        network.load_state_dict(from_diffusers(load_file(weights), unet))
    except (OSError, SafetensorError, RuntimeError, KeyError) as err:
        raise DdpmkitError(f"can't read '{weights}': {str(err).splitlines()[0]}", "write the folder again") from None
    scheduler = _scheduler(Path(folder) / "scheduler" / "scheduler_config.json")
    asked = scheduler.get("prediction_type", "epsilon")
    prediction = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}.get(asked, asked)
    return Read(_spec(unet), network.eval(), _betas(scheduler), prediction, config["time_scale"])


def _betas(scheduler: Mapping[str, Any]) -> tuple[float, ...]:
    """As they are written, or as diffusers makes them, in float32."""
    if not scheduler or scheduler.get("trained_betas"):
        return tuple(scheduler.get("trained_betas") or ())
    from diffusers import DDPMScheduler

    return tuple(DDPMScheduler.from_config(dict(scheduler)).betas.tolist())


def _unet(config: Mapping[str, Any]) -> tuple[Any, Told]:
    """The ``unet`` that a configuration is nearest to, and what it is built for."""
    widths, size = list(config["block_out_channels"]), config.get("sample_size")
    if size is None:
        raise DdpmkitError("the configuration says no sample_size", "write it into unet/config.json: the images' side")
    size = size if isinstance(size, int) else (int(size[0]), int(size[1]))
    patch, side = config["patch"], size if isinstance(size, int) else max(size)
    attends = [kind == "AttnDownBlock2D" for kind in config["down_block_types"]]
    attention = [str(side // patch >> level) for level, a in enumerate(attends) if a]
    attending = {w for w, a in zip(widths, attends, strict=False) if a} | (
        {widths[-1]} if config["add_attention"] else set()
    )
    heads = config["heads"] or (
        max(attending, default=1) // (config["attention_head_dim"] or max(attending, default=1))
    )
    given = {
        "channels": widths[0],
        "mults": "/".join(str(max(1, w // widths[0])) for w in widths),
        "blocks": config["layers_per_block"],
        "attention": "/".join(attention),
        "middle_attention": str(bool(config["add_attention"])).lower(),
        "heads": max(1, heads),
        "time": "scale-shift" if config["resnet_time_scale_shift"] == "scale_shift" else "shift",
        "details": "ho" if config["freq_shift"] else "improved",
        "patch": patch,
    }
    if config["octaves"]:
        given |= {"fourier": "true", "octaves": "/".join(map(str, config["octaves"]))}
    text = "unet:" + ":".join(f"{k}={v}" for k, v in given.items())
    classes = None if config["num_class_embeds"] is None else config["num_class_embeds"] - 1
    told = Told(config["in_channels"], config["out_channels"], size, classes, round(1000 / config["time_scale"]))
    return build("backbone", text), told


def _differences(config: Mapping[str, Any], unet: Any, network: Any, told: Told) -> list[str]:
    """What a configuration says that ``unet`` is not, in words."""
    ours, extra = configuration(unet, network, told)
    said = {**ALWAYS, **{k: v for k, v in ours.items() if k not in ("attention_head_dim", "norm_num_groups")}}
    said |= {"sample_size": config["sample_size"]}
    theirs, wanted = {**config}, {**said}
    # Heads and groups are written in two ways; what they come to is compared.
    for told_by, each in ((theirs, config), (wanted, {**ELSE, **ours, **extra})):
        told_by["attn_norm_num_groups"] = None
        told_by["heads"] = _heads(each)
        told_by["groups"] = _groups(each, network)
    if config["time_embedding_dim"] == 4 * config["block_out_channels"][0]:
        theirs["time_embedding_dim"] = None
    return [
        f"its {key} is {_plain(theirs.get(key))}, and unet's {_plain(value)}"
        for key, value in wanted.items()
        if _plain(theirs.get(key)) != _plain(value)
    ]


def _heads(config: Mapping[str, Any]) -> list[int]:
    """Heads of the attention at each resolution that has it, and in the middle."""
    widths, kinds = config["block_out_channels"], config["down_block_types"]
    at = [w for w, kind in zip(widths, kinds, strict=False) if kind == "AttnDownBlock2D"]
    at += [widths[-1]] if config["add_attention"] else []
    return [config["heads"] or w // (config["attention_head_dim"] or w) for w in at]


def _groups(config: Mapping[str, Any], network: Any) -> dict[str, int | None]:
    """Groups of a GroupNorm by its channels, and of the one before the middle's attention."""
    stated = {int(c): int(g) for c, g in config["norm_groups"]}
    every = config["norm_num_groups"]
    out: dict[str, int | None] = {str(c): stated.get(c, every) for c in norm_groups(network)}
    middle = config["attn_norm_num_groups"]
    if middle is None and config["resnet_time_scale_shift"] == "default":
        middle = every
    width = config["block_out_channels"][-1]
    if config["add_attention"]:
        out["middle"] = None if middle is None else stated.get(width, middle)
    return out


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _scheduler(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as err:
        raise DdpmkitError(f"can't read '{path}': {err}", "write the folder again") from None
    return found if isinstance(found, dict) else {}


def _spec(unet: Any) -> str:
    from ddpmkit.plugin import spec

    return str(spec.format(unet))
