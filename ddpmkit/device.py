"""The few questions whose answer depends on the device: which one, which optimiser, autocast, memory format.

Everything else is the same code everywhere. The proof that no host sync hides in a hot loop runs on ``meta``, where
fused optimisers and autocast do not exist; it is answered here too.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from ddpmkit.errors import DdpmkitError


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


def precision(name: str, device: torch.device) -> str:
    """Resolve the declared precision: ``auto`` is bf16 where the hardware has it, else fp32. It enters stage ids.

    Raises:
        DdpmkitError: for a word that is no precision.
    """
    if name not in ("auto", "fp32", "bf16"):
        raise DdpmkitError(f"unknown precision '{name}'", "use auto, fp32 or bf16")
    if name == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    if name == "bf16" and device.type not in ("cpu", "cuda"):
        raise DdpmkitError(f"precision bf16 is not offered on {device.type}", "use --precision fp32")
    return name


def autocast(device: torch.device, declared: str) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast context of a declared precision; fp32 is the empty context."""
    if declared == "bf16" and device.type in ("cuda", "cpu"):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


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
