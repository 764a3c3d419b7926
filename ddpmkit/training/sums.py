"""Sums by index and running sums that give the same bits every time, on every device.

A CPU adds one number after another. CUDA adds in whatever order its threads come in, for which torch's deterministic
mode has no remedy in a running sum of floats; there, each is written in a form in which the order is fixed or does not
matter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

WHOLE = 2.0**40  # p is counted in units of 1 / WHOLE: integers add up alike in any order


def add_at(into: Tensor, index: Tensor, values: Tensor) -> None:
    """Add values (B,) to the entries of ``into`` (T,) that index, int64 (B,), names, in place."""
    if in_order(into.device):
        into.index_add_(0, index, values)
    else:
        hit = index[None, :] == torch.arange(len(into), device=into.device)[:, None]
        into.add_(torch.where(hit, values[None, :], torch.zeros_like(values)[None, :]).sum(1))


def sums_of_blocks(values: Tensor, width: int) -> Tensor:
    """Return for each entry of (T,) the sum of its block of ``width`` entries; the last may be short."""
    if in_order(values.device):
        block = torch.arange(len(values), device=values.device) // width
        return torch.zeros_like(values).index_add_(0, block, values)[block]
    padded = F.pad(values, (0, -len(values) % width))
    return padded.reshape(-1, width).sum(1, keepdim=True).expand(-1, width).reshape(-1)[: len(values)]


def inverse_cdf(p: Tensor, u: Tensor) -> Tensor:
    """Return for each u in [0, 1) the first index, int64 (B,), at which the running sum of p (T,) exceeds u."""
    if in_order(p.device):
        cdf = p.cumsum(0)
        found = torch.searchsorted(cdf, u * cdf[-1], right=True)
    else:
        whole = (p.double() * WHOLE).long().cumsum(0)
        found = torch.searchsorted(whole, (u.double() * whole[-1]).long(), right=True)
    return found.clamp(max=len(p) - 1)


def in_order(device: torch.device) -> bool:
    """Whether a device adds up in one order; MPS has no float64 for the other form, and is taken as it is."""
    return device.type in ("cpu", "mps")
