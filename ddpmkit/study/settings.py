"""The settings of a study: everything that shapes a result but the seeds; and what may differ between two runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ddpmkit.plugin import spec
from ddpmkit.plugin.parameters import param, parameters

COMPONENTS = ("dataset", "schedule", "sigma", "weighting", "backbone", "sampler", "prediction")


@dataclass(frozen=True)
class Settings:
    """Everything that shapes a result but the seeds. Any field can be an axis."""

    name: ClassVar[str] = "settings"
    dataset: str = param("digits", "data set")
    schedule: str = param("linear", "variance schedule")
    sigma: str = param("beta-tilde", "variance of the reverse step")
    weighting: str = param("simple", "weight of each step in the loss")
    backbone: str = param("unet:fourier=true", "network")
    sampler: str = param("ancestral", "walk from noise to image")
    timesteps: int = param(1000, "T, steps of the forward process", ge=2)
    sampling_steps: int = param(50, "steps of the reverse walk", ge=1)
    prediction: str = param(
        "v",
        "what the network estimates; of mu, as of all, x0hat is solved for and clipped, where improved-diffusion takes "
        "the network's mean as it is",
    )
    timestep_sampling: Literal["uniform", "stratified", "importance"] = param(
        "importance", "how the steps of a training batch are drawn"
    )
    train_steps: int = param(1000, "optimiser steps", ge=1)
    batch_size: int = param(48, "images a step", ge=1)
    learning_rate: float = param(6e-3, "AdamW's rate after warm-up", gt=0)
    lr_decay: Literal["cosine", "constant", "cooldown"] = param(
        "cosine",
        "course of the rate after warm-up: cosine falls over all steps; with constant, lengths are one training; "
        "cooldown branches off that and falls over its last steps",
    )
    cooldown_share: float = param(
        0.2, "share of a training's steps over which cooldown lets the rate fall", gt=0, le=1, before=0.2
    )
    warmup: int = param(100, "steps of linear warm-up", ge=0)
    weight_decay: float = param(0.0, "AdamW's weight decay", ge=0)
    grad_clip: float = param(1.0, "largest global norm of the gradient", gt=0)
    clip_ratio: float | None = param(
        None,
        "largest norm of the gradient, in running means of its norm, instead of grad_clip: it knows no scale of a loss",
        gt=1,
        before=None,
    )
    ema: float = param(
        0.99, "rate of the weights' moving average; as an axis, all are kept in one training", ge=0, lt=1
    )
    dropout: float | None = param(
        None, "rate of all dropout layers of the backbone; none leaves each its own", ge=0, lt=1
    )
    flip: bool = param(
        False,
        "mirror half of the training images left to right, a new half each time; distances and likelihood see them "
        "unmirrored, the copy check both ways",
        before=False,
    )
    conditional: bool = param(False, "train with the labels of the data", before=False)
    label_dropout: float = param(
        0.1, "share of training images that a conditional network is shown without their label", ge=0, lt=1, before=0.1
    )
    precision: Literal["fp32", "tf32", "bf16", "auto"] = param(
        "fp32", "of training; auto is bf16 where the hardware has it"
    )
    eval_precision: Literal["fp32", "tf32", "bf16", "auto"] = param(
        "fp32", "of sampling and likelihood; auto is tf32 where the hardware has it"
    )
    micro_batch: int = param(64, "images the network sees at once in training", ge=1)
    eval_batch: int = param(128, "images the network sees at once in sampling and likelihood", ge=1)
    samples: int = param(1000, "images drawn for each result", ge=2)
    guidance: float = param(
        0.0,
        "strength w of classifier-free guidance: eps = (1 + w) eps(x_t, y) - w eps(x_t); diffusers' guidance_scale is "
        "1 + w; 0 is the conditional model, -1 the unconditional one",
        ge=-1,
        before=0.0,
    )
    sample_labels: Literal["data", "balanced"] = param(
        "data", "classes of conditional samples: drawn as often as in the training images, or in turn", before="data"
    )
    reference_split: Literal["test", "train"] = param("test", "images that samples are held against; papers use train")
    nll_evals: int = param(8192, "network evaluations for the middle sum of the bound", ge=16)
    nll_se: float | None = param(None, "standard error of the bound to reach, bits/dim, instead of nll_evals", gt=0)
    nll_full: bool = param(False, "every test image at every step, instead of nll_evals")
    nll_chain: Literal["full", "walk"] = param(
        "full",
        "chain that the bound is of: all T steps, or those of the reverse walk, sampling_steps of them",
        before="full",
    )
    nll_split: Literal["test", "validation"] = param(
        "test", "images that the bound is of; validation to choose settings by, not to report", before="test"
    )
    decoder_variance: Literal["tilde2", "beta1", "fitted"] = param("tilde2", "variance of the decoder p(x0 | x1)")
    fit_images: int = param(64, "training images at each step for a fitted sigma or decoder variance", ge=1)

    def __post_init__(self) -> None:
        """Check every field."""
        spec.validate(self)


def cooldown_steps(s: Settings) -> int:
    """Return the last steps of a training over which its rate falls; 0 where it is constant or falls over all steps."""
    return max(1, round(s.cooldown_share * s.train_steps)) if s.lr_decay == "cooldown" else 0


FIELDS = {p.name: p for p in parameters(Settings)}

PLURALS = {
    "schedules": "schedule",
    "sigmas": "sigma",
    "weightings": "weighting",
    "backbones": "backbone",
    "samplers": "sampler",
    "predictions": "prediction",
    "guidances": "guidance",
}


def field_named(key: str) -> str:
    """Return the field of a setting that was named by its flag, its plural or its own name."""
    plain = key.replace("-", "_")
    return PLURALS.get(plain, plain)


# Settings without a flag of their own: --axis NAME=VALUE sets them.
AXIS_ONLY = (
    "lr_decay", "cooldown_share", "warmup", "weight_decay", "grad_clip", "clip_ratio", "ema", "flip", "label_dropout",
    "eval_precision", "micro_batch", "eval_batch", "sample_labels", "reference_split", "nll_chain", "nll_split",
    "decoder_variance", "fit_images",
)  # fmt: skip

NLL = "nll"  # asked for among the metrics, and a likelihood
DEFAULT_METRICS = ("fd", "copy", NLL)
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"train_steps": 400, "samples": 200, "sampling_steps": 25, "nll_evals": 2048},
    "small": {"samples": 500, "sampling_steps": 50, "nll_evals": 4096},
    # Ho et al. 2020, appendix B, on CIFAR-10; its dropout and flips are of that data set, and are said by who has it.
    "paper": {
        "prediction": "eps", "timestep_sampling": "uniform",
        "train_steps": 800_000, "batch_size": 128, "micro_batch": 128, "learning_rate": 2e-4, "lr_decay": "constant",
        "warmup": 5000, "ema": 0.9999, "sampling_steps": 1000, "samples": 50_000, "reference_split": "train",
        "nll_full": True,
    },
}  # fmt: skip


Compile = Literal["auto", "on", "off"]  # whether networks are compiled; no setting, for it names no stage


@dataclass(frozen=True)
class StageOptions:
    """What may differ between two runs of a stage without changing a number."""

    device: str = "auto"
    compile: str = "auto"  # see ddpmkit/compiling.py
    checkpoint_every: int = 500
    checkpoint_seconds: float = 60.0
    log_every: int = 50
    run: str = ""  # what the process works for; see study/claim.py
    timeout: float | None = None  # seconds that one attempt may take
    alone: bool = False  # a training makes all of its steps itself, whatever others have left; see study/begin.py
    steal: tuple[str, ...] = ()  # marks of claims that are taken over though their processes may be alive
