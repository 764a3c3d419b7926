"""Exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


def average_of(net: nn.Module) -> nn.Module:
    """Return the average's own network, equal to ``net`` and without gradients, in evaluation mode."""
    return copy.deepcopy(net).requires_grad_(False).eval()


def decay_at(rate: float, step: int) -> float:
    """Return min(rate, (1 + n) / (10 + n)) after n steps: early on, the average forgets its random start."""
    return min(rate, (1 + step) / (10 + step))


@torch.no_grad()
def update(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Average <- decay * average + (1 - decay) * weights, in one call for all tensors; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1.0 - decay)
    for mine, theirs in zip(average.buffers(), net.buffers(), strict=True):
        mine.copy_(theirs)
