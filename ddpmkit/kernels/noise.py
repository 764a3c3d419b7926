"""Keyed noise by Triton kernels, as operators that torch.compile and fake tensors know; the twins are in randomness.py.

``torch.library.define`` and not ``custom_op``: an operator of the latter imports the whole compiler when first called.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddpmkit.kernels import power_of_two

TILE = 256  # counters a program: two a thread, so that the code stays short and compiles in seconds


torch.library.define(
    "ddpmkit::normal", "(int k0, int k1, Tensor index, Tensor? position, int where, int count) -> Tensor"
)
torch.library.define("ddpmkit::uniform", "(int k0, int k1, Tensor index, int where) -> Tensor")


def normal(k0: int, k1: int, index: Tensor, position: Tensor | None, where: int, count: int) -> Tensor:
    """Return unit normals, float32 (B, count), of the counters (block, index, position, 0); else at ``where``."""
    out: Tensor = torch.ops.ddpmkit.normal.default(k0, k1, index, position, where, count)
    return out


def uniform(k0: int, k1: int, index: Tensor, where: int) -> Tensor:
    """Return u in [0, 1), float64 of index's shape, of the counters (0, index, where, 0)."""
    out: Tensor = torch.ops.ddpmkit.uniform.default(k0, k1, index, where)
    return out


@torch.library.impl("ddpmkit::normal", ("cpu", "cuda"))
def _(k0: int, k1: int, index: Tensor, position: Tensor | None, where: int, count: int) -> Tensor:
    from ddpmkit.kernels.noise_triton import normal_kernel

    rows, blocks = len(index), -(-count // 4)
    out = torch.empty(rows, count, device=index.device)
    block = min(power_of_two(blocks), TILE)
    together = min(power_of_two(rows), TILE // block)
    grid = (-(-rows // together) * -(-blocks // block),)
    given = None if position is None else position.contiguous()
    key = _word(k0), _word(k1)
    if out.numel():
        with torch.cuda.device_of(out):
            normal_kernel[grid](
                index.contiguous(), given, out, *key, _word(where), rows, count, blocks, ROWS=together, BLOCK=block
            )
    return out


@torch.library.register_fake("ddpmkit::normal")  # type: ignore[untyped-decorator]
def _(k0: int, k1: int, index: Tensor, position: Tensor | None, where: int, count: int) -> Tensor:
    return index.new_empty((len(index), count), dtype=torch.float32)


@torch.library.impl("ddpmkit::uniform", ("cpu", "cuda"))
def _(k0: int, k1: int, index: Tensor, where: int) -> Tensor:
    from ddpmkit.kernels.noise_triton import uniform_kernel

    flat = index.contiguous().view(-1)
    out = torch.empty(index.shape, dtype=torch.float64, device=index.device)
    rows = min(power_of_two(len(flat)), TILE)
    if out.numel():
        with torch.cuda.device_of(out):
            uniform_kernel[(-(-len(flat) // rows),)](
                flat, out, _word(k0), _word(k1), _word(where), len(flat), ROWS=rows
            )
    return out


@torch.library.register_fake("ddpmkit::uniform")  # type: ignore[untyped-decorator]
def _(k0: int, k1: int, index: Tensor, where: int) -> Tensor:
    return torch.empty(index.shape, dtype=torch.float64, device=index.device)


def _word(value: int) -> int:
    """The 32 bits of a word as a signed integer, so that Triton sees one type whatever the key is."""
    return value - 2**32 if value >= 2**31 else value
