"""The settings of one training, and the course of its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ddpmkit.errors import check_choice
from ddpmkit.plugin.interfaces import Prediction
from ddpmkit.training.timesteps import TimestepSampling


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training. All of them enter its id.

    Attributes:
        steps: number of optimiser steps.
        batch_size: images a step.
        micro_batch: images the network sees at once; gradients are accumulated.
        learning_rate: AdamW's, after warm-up.
        lr_decay: ``cosine`` to zero over all steps, ``constant``, or ``cooldown``: constant, then a cosine to zero.
        warmup: steps of linear warm-up.
        weight_decay: AdamW's.
        grad_clip: gradients are scaled down to this global norm.
        emas: rates of the weights' moving averages; all are kept.
        dropout: rate of every dropout layer; None leaves each with the rate that the network gave it.
        prediction: what the network estimates.
        timestep_sampling: how the steps of a batch are drawn.
        precision: ``fp32``, ``tf32``, or ``bf16`` for autocast.
        seed: the train seed.
        flip: whether half of the images, chosen anew each time, are mirrored left to right.
        label_dropout: share of images that a class-conditional network is shown without their label.
        cooldown: the last steps, over which the rate falls; of ``cooldown`` alone.
        clip_ratio: gradients are scaled down to so many times their running norm, instead of to ``grad_clip``.
    """

    steps: int
    batch_size: int
    micro_batch: int
    learning_rate: float
    lr_decay: Literal["cosine", "constant", "cooldown"]
    warmup: int
    weight_decay: float
    grad_clip: float
    emas: tuple[float, ...]
    dropout: float | None
    prediction: Prediction
    timestep_sampling: TimestepSampling
    precision: str
    seed: int
    flip: bool = False
    label_dropout: float = 0.0
    cooldown: int = 0
    clip_ratio: float | None = None


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate of step ``step``; see :func:`rate`."""
    return rate(
        step,
        config.learning_rate,
        steps=config.steps,
        warmup=config.warmup,
        lr_decay=config.lr_decay,
        cooldown=config.cooldown,
    )


def rate(step: int, largest: float, *, steps: int, warmup: int, lr_decay: str, cooldown: int = 0) -> float:
    """Return the rate of step ``step`` of a training: linear warm-up, then constant or half a cosine down to zero.

    The half cosine is over all steps, or over the last ``cooldown`` ones, 0.5 (1 + cos(pi n / cooldown)) in the n-th,
    counted from 0: Haegele et al. 2024 (arXiv 2405.18392), section 3, with a cosine for their 1 - sqrt.

    Raises:
        DdpmkitError: for another decay.
    """
    warm = min(1.0, (step + 1) / max(warmup, 1))
    over = {"cosine": steps, "constant": 0, "cooldown": cooldown}
    check_choice("lr_decay", lr_decay, over)
    falls = over[lr_decay]
    begins = steps - falls
    decay = 0.5 * (1 + math.cos(math.pi * (step - begins) / falls)) if step >= begins and falls else 1.0
    return largest * warm * decay
