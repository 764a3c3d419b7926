"""What is raced: one network a case, written for each contender, and the size of a block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """One architecture, three times.

    Attributes:
        name: of the case.
        ours: spec of ddpmkit's backbone.
        diffusers: arguments of diffusers' UNet2DModel for the same architecture.
        ddpm_pytorch: those of denoising-diffusion-pytorch's Unet, which has no setting for this architecture: the
            nearest one, whose parameters are counted in the table.
        shape: (C, H, W) of an image.
        levels: grey levels.
        batch: images a training step.
        steps: training steps in a block.
        drawn: images at once in sampling.
        evaluations: network evaluations in a block of sampling.
        ema: rate of the moving average.
    """

    name: str
    ours: str
    diffusers: dict[str, Any]
    ddpm_pytorch: dict[str, Any]
    shape: tuple[int, int, int]
    levels: int
    batch: int
    steps: int
    drawn: int
    evaluations: int
    ema: float = 0.999


def _diffusers(shape: tuple[int, int, int], channels: tuple[int, ...], **more: Any) -> dict[str, Any]:
    levels = len(channels)
    plain = {
        "sample_size": shape[1], "in_channels": shape[0], "out_channels": shape[0], "block_out_channels": channels,
        "layers_per_block": 1, "down_block_types": ("DownBlock2D",) * levels, "up_block_types": ("UpBlock2D",) * levels,
        "attention_head_dim": channels[-1], "resnet_time_scale_shift": "scale_shift",
    }  # fmt: skip
    return {**plain, **more}


# config.json of google/ddpm-cifar10-32, the published network of Ho et al.; 35,746,307 parameters.
HO = {
    "center_input_sample": False, "time_embedding_type": "positional", "flip_sin_to_cos": False, "freq_shift": 1,
    "act_fn": "silu", "layers_per_block": 2, "attention_head_dim": None, "resnet_time_scale_shift": "default",
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0, "mid_block_scale_factor": 1, "norm_eps": 1e-6, "norm_num_groups": 32,
}  # fmt: skip

DIGITS = Case(
    "8x8",
    "unet",
    _diffusers((1, 8, 8), (16, 32), norm_num_groups=4),
    {"dim": 16, "dim_mults": (1, 2), "channels": 1, "full_attn": (False, True)},
    (1, 8, 8), 17, 64, 20, 128, 20,
)  # fmt: skip
MNIST = Case(
    "28x28",
    "unet:channels=32",
    _diffusers((1, 28, 28), (32, 64), norm_num_groups=8),
    {"dim": 32, "dim_mults": (1, 2), "channels": 1, "full_attn": (False, True)},
    (1, 28, 28), 256, 32, 4, 32, 8,
)  # fmt: skip
CIFAR = Case(
    "32x32, Ho et al.",
    "unet:size=ho-cifar10",
    _diffusers((3, 32, 32), (128, 256, 256, 256), **HO),
    {"dim": 128, "dim_mults": (1, 2, 2, 2)},
    (3, 32, 32), 256, 128, 10, 128, 25, 0.9999,
)  # fmt: skip
# What stands in for it where there is no GPU: the same code, of a size that proves that it runs and times nothing.
CIFAR_DRY = replace(
    CIFAR,
    name="32x32, toy",
    ours="unet:size=ho-cifar10:channels=32:mults=1/1:blocks=1",
    diffusers=_diffusers(
        (3, 32, 32), (32, 32),
        **{**HO, "layers_per_block": 1, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
           "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
    ),
    ddpm_pytorch={"dim": 32, "dim_mults": (1, 1)},
    batch=2, steps=2, drawn=2, evaluations=2,
)  # fmt: skip
CASES = {case.name: case for case in (DIGITS, MNIST, CIFAR, CIFAR_DRY)}


def small(case: Case) -> Case:
    """The case with the least blocks that still run everything."""
    return replace(case, batch=min(case.batch, 4), steps=2, drawn=min(case.drawn, 4), evaluations=2)
