"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def average_of(net: nn.Module) -> nn.Module:
    """Return the average's own network, equal to ``net`` and without gradients, in evaluation mode."""
    return copy.deepcopy(net).requires_grad_(False).eval()


def decay_at(rate: float, step: int) -> float:
    """Return min(rate, (1 + n) / (10 + n)) after n steps: early on, the average forgets its random start."""
    return min(rate, (1 + step) / (10 + step))


@torch.no_grad()
def update(average: nn.Module, net: nn.Module, decay: float | Tensor) -> None:
    """Average <- decay * average + (1 - decay) * weights, in one call for all tensors; buffers are copied.

    A decay in a tensor, float64 (), is read on the device; the bits are those of the same number as a float.
    """
    mine: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(net.parameters())
    weight = 1.0 - decay
    if isinstance(weight, Tensor):
        # A list of weights, since a single tensor would be read as a number, once, and be that for ever in a recording.
        by_dtype = {v.dtype: weight.to(v.dtype) for v in mine}
        weights: Any = [by_dtype[v.dtype] for v in mine]
        torch._foreach_lerp_(mine, theirs, weights)
    else:
        torch._foreach_lerp_(mine, theirs, weight)
    for kept, new in zip(average.buffers(), net.buffers(), strict=True):
        kept.copy_(new)
