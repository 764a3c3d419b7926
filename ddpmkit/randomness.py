"""Random numbers from counters, not from generator state: number = f(seed, stream, index).

Philox4x32-10 (Salmon et al., SC 2011, "Parallel Random Numbers: As Easy as 1, 2, 3") in torch integer arithmetic: the
same bits on every device, for any subset of indices in any order, with no state to save and no host sync.
"""

from __future__ import annotations

import functools
import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpmkit.errors import DdpmkitError
from ddpmkit.kernels import fused, noise

_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # key increments
_MASK = 0xFFFFFFFF

Key = tuple[int, int]


def stream_key(seed: int | str, stream: str) -> Key:
    """Return the 64-bit key of a stream of a seed: init, order, time, noise, flip, label, dropout, sampling, nll ..."""
    digest = hashlib.sha256(f"ddpmkit/{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def stream_seed(seed: int | str, stream: str, index: int | str) -> int:
    """Return a 63-bit seed for libraries that want one: torch.manual_seed for dropout, a permutation and the like."""
    digest = hashlib.sha256(f"ddpmkit/{seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_libraries(seed: int | str, stream: str, index: int | str) -> None:
    """Seed torch, numpy and random from a counter, for code that draws from them: dropout, a plugin's own noise."""
    value = stream_seed(seed, stream, index)
    torch.manual_seed(value)
    np.random.seed(value & _MASK)  # what others' code draws from
    random.seed(value)


def draw_again(device: torch.device) -> None:
    """Let a GPU's generator draw after a capture that failed, which it takes to go on; it draws on from here."""
    generators = getattr(torch.cuda, "default_generators", ())
    index = torch.cuda.current_device() if device.index is None and generators else device.index or 0
    generator: Any = generators[index] if index < len(generators) else None
    if hasattr(generator, "graphsafe_set_state") and hasattr(generator, "clone_state"):  # since torch 2.4
        generator.graphsafe_set_state(generator.clone_state())


@contextmanager
def seeded_libraries(seed: int | str, stream: str, index: int | str) -> Iterator[None]:
    """Seed torch, numpy and random, and put the caller's states back at the end."""
    states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    seed_libraries(seed, stream, index)
    try:
        yield
    finally:
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def philox(key: Key, c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four 32-bit words (held in int64 tensors that broadcast) for each counter."""
    k0, k1 = key
    for _ in range(10):
        # The product of two 32-bit words wraps in int64, but its 64 bits are right, so both halves are.
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def uniform(key: Key, index: Tensor, position: int = 0) -> Tensor:
    """Return u in [0, 1), float64 (float32 where the device has no float64), one for each int64 index below 2^32."""
    return noise.uniform(*key, index, position) if fused(index.device) else _uniform(key, index, position)


def _uniform(key: Key, index: Tensor, position: int) -> Tensor:
    zero = torch.zeros_like(index)
    w0, w1, _, _ = philox(key, zero, index, zero + position, zero)
    if _wide(index.device) is torch.float32:
        return (w0 >> 8) * (1.0 / 16777216.0)
    # 53 bits, as many as a float64 in [0, 1) can tell apart.
    return ((w0 >> 5).to(torch.float64) * 67108864.0 + (w1 >> 6)) * (1.0 / 9007199254740992.0)


def normal(key: Key, index: Tensor, shape: tuple[int, ...], position: int | Tensor = 0) -> Tensor:
    """Return unit normals, float32 of shape (len(index), *shape): Box-Muller on Philox words.

    Args:
        key: From :func:`stream_key`.
        index: int64 (B,), the sample each row belongs to; a row depends on nothing but its own index.
        shape: The shape of one sample.
        position: Which draw of that sample, an int or int64 (B,); steps are counted from the noise end.
    """
    count = math.prod(shape)
    if not fused(index.device):
        flat = _normal(key, index, count, position)
    elif isinstance(position, Tensor):
        flat = noise.normal(*key, index, position, 0, count)
    else:
        flat = noise.normal(*key, index, None, position, count)
    return flat.reshape(len(index), *shape)


def _normal(key: Key, index: Tensor, count: int, position: int | Tensor) -> Tensor:
    blocks = -(-count // 4)
    block = torch.arange(blocks, device=index.device)[None, :]
    where = position[:, None] if isinstance(position, Tensor) else torch.full_like(index, position)[:, None]
    w0, w1, w2, w3 = philox(key, block, index[:, None], where, torch.zeros_like(block))
    # u in (0, 1]: the logarithm never sees zero. 32 bits reach 6.66 standard deviations, as far as float32 noise needs.
    wide = _wide(index.device)
    radius = torch.stack([w0, w2], -1).add_(1).to(wide).mul_(2.0**-32).log_().mul_(-2.0).sqrt_().float()
    angle = torch.stack([w1, w3], -1).to(wide).mul_(2.0 * math.pi * 2.0**-32).float()
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return pairs.reshape(len(index), 4 * blocks)[:, :count]


@functools.cache
def differing(device: torch.device) -> str:
    """Say how many of 65,536 normals of the fused kernel differ in the last places from those of plain torch.

    The logarithm, sine and cosine of two libraries may round differently; the words may not.

    Raises:
        DdpmkitError: when the kernel gives something else on this device.
    """
    key, index = stream_key(0, "kernels"), torch.arange(256, device=device)
    fast, slow = noise.normal(*key, index, None, 1, 256), _normal(key, index, 256, 1)
    exact = torch.equal(noise.uniform(*key, index, 1), _uniform(key, index, 1))
    if not exact or not torch.allclose(fast, slow, rtol=1e-6, atol=4e-6):
        raise DdpmkitError(f"the fused noise is wrong on {device}", "set DDPMKIT_KERNELS=eager")
    return f"{int((fast != slow).sum())} of {fast.numel()} normals differ"


def permutation(seed: int | str, n: int, epoch: int | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Return the order in which epoch ``epoch`` visits ``n`` items, int64 (n,); of epochs (E, 1), (E, n)."""
    index = torch.arange(n, device=device)
    zero = torch.zeros_like(index)
    w0, w1, _, _ = philox(stream_key(seed, "order"), zero, index, zero + epoch, zero)
    # Integers sort alike on every device; two of 63 bits do not meet.
    return torch.argsort((w0 << 31) ^ w1)


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
