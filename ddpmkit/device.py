"""The few questions whose answer depends on the device: which one, which optimiser, autocast, memory format.

Everything else is the same code everywhere. The proof that no host sync hides in a hot loop runs on ``meta``, where
fused optimisers and autocast do not exist; it is answered here too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from ddpmkit import kernels
from ddpmkit.errors import DdpmkitError, check_choice
from ddpmkit.randomness import differing


def resolve(name: str) -> torch.device:
    """Turn ``auto|cpu|cuda|cuda:1|mps`` into a device that is here.

    Raises:
        DdpmkitError: when it is no device, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DdpmkitError(f"unknown device '{name}'", "use --device auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        here = torch.cuda.device_count()
        if (device.index or 0) >= here:
            raise DdpmkitError(f"device '{name}' is not here: this machine has {here} CUDA device(s)", "--device auto")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise DdpmkitError("device 'mps' is not here", "--device auto")
    elif device.type not in ("cpu", "mps"):
        raise DdpmkitError(f"device '{name}' is not supported", "use --device auto, cpu, cuda, cuda:1 or mps")
    return device


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively; where it does not, autocast is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device)[0] >= 8)
    if device.type == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        return capability.startswith("AVX512") and _cpu_flag("avx512_bf16")
    return False


def native_tf32(device: torch.device) -> bool:
    """Whether the hardware multiplies float32 with 10 bits of mantissa when it is allowed to: GPUs since Ampere."""
    return device.type == "cuda" and bool(torch.cuda.get_device_capability(device)[0] >= 8)


def precision(name: str, device: torch.device, *, learns: bool = True) -> str:
    """Resolve the declared precision, which enters stage ids.

    ``auto`` is bf16 in training where the hardware has it, and tf32 in evaluation where it has that; else fp32.

    Raises:
        DdpmkitError: for a word that is no precision, or one that the device does not offer.
    """
    if name not in ("auto", "fp32", "tf32", "bf16"):
        raise DdpmkitError(f"unknown precision '{name}'", "use auto, fp32, tf32 or bf16")
    if name == "auto":
        best, here = ("bf16", native_bf16) if learns else ("tf32", native_tf32)
        return best if here(device) else "fp32"
    if (name == "bf16" and device.type not in ("cpu", "cuda")) or (name == "tf32" and not native_tf32(device)):
        flag = "--precision fp32" if learns else "--axis eval_precision=fp32"
        raise DdpmkitError(f"precision {name} is not offered on this {device.type}", f"use {flag}")
    return name


def autocast(device: torch.device, declared: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a network answers at a declared precision; that of fp32 is empty.

    Raises:
        DdpmkitError: for another word: it would quietly be fp32. ``auto`` is to be resolved first.
    """
    check_choice("precision", declared, ("fp32", "tf32", "bf16"))
    if declared == "bf16" and device.type in ("cuda", "cpu"):
        return torch.autocast(device.type, torch.bfloat16)
    return products(device, declared)


@contextlib.contextmanager
def products(device: torch.device, declared: str) -> Iterator[None]:
    """Let products of float32 be TF32 where that is declared; a gradient is taken outside of :func:`autocast`."""
    if declared != "tf32" or device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = True, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


def keep_memory(device: torch.device) -> None:
    """Let a CPU process keep the memory that it frees: a step asks for the same pieces again and again.

    glibc gives large pieces back to the system, which then clears each page anew: 4 % of a training step on 28x28
    images. No number changes. What is larger than 32 MiB, as a data set, still goes back. Nothing is done where the C
    library is another one.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for option, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26), (_MMAP_THRESHOLD, 2**25)):
        mallopt(option, value)


def place(net: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, channels-last where that is the faster layout for convolutions."""
    if device.type in ("cuda", "cpu"):
        return net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    return net.to(device)


def adamw(params: Iterable[nn.Parameter], device: torch.device, **options: Any) -> torch.optim.AdamW:
    """Build AdamW, fused where the device has it."""
    fused = device.type in ("cuda", "cpu", "mps")
    return torch.optim.AdamW(params, fused=fused, foreach=False if fused else None, **options)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Use one CPU thread, in torch and in BLAS: the bits then do not depend on the number of cores.

    As many one-thread workers as there are cores are also faster than one worker with all threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Make CUDA give the same bits twice, and fp32 mean fp32: no TF32, deterministic kernels, no auto-tuning.

    In torch's deterministic mode attention's gradient is added up in one order too, which it is not otherwise; a kernel
    that has no such form is an error, which :class:`ddpmkit.recording.CudaGraphs` turns into a warning.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is used for the first time
    before = torch.backends.cuda.matmul.allow_tf32
    mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch_mode: Any = torch.utils.deterministic
    filled = torch_mode.fill_uninitialized_memory
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True)
    torch_mode.fill_uninitialized_memory = False  # nothing here reads what nobody wrote
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])
        torch_mode.fill_uninitialized_memory = filled


def fingerprint(device: torch.device) -> dict[str, Any]:
    """Describe what may change the last bits of a number without changing its meaning. Recorded, never hashed."""
    import numpy as np

    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "memory_format": "channels_last" if device.type in ("cuda", "cpu") else "contiguous",
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "kernels": kernels.said(device),
        "noise": differing(device) if kernels.fused(device) else None,
        "optimizer": "fused" if device.type in ("cuda", "cpu", "mps") else "foreach",
    }


def _cpu_flag(flag: str) -> bool:
    return any(flag in line.split() for line in _cpuinfo() if line.startswith("flags"))


def _cpu_name() -> str:
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:  # no Linux
        return []
