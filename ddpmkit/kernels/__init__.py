"""Fused Triton kernels, and the one switch between them and plain torch.

A kernel has an eager twin, which runs everywhere else and says what the kernel must give. Which of the two ran is in a
stage's fingerprint and never in its id: they agree to rounding, and random words to the last bit.
"""

from __future__ import annotations

import functools
import os

import torch

from ddpmkit.errors import DdpmkitError

VARIABLE = "DDPMKIT_KERNELS"
CAPABILITY = (8, 0)  # of the oldest GPUs that Triton compiles for


def fused(device: torch.device) -> bool:
    """Whether the Triton kernels run on a device: where it is an NVIDIA GPU and triton can be imported.

    ``DDPMKIT_KERNELS=eager`` says nowhere; ``triton`` says everywhere: on a CPU then by Triton's interpreter.

    Raises:
        DdpmkitError: for another value; when triton is asked for and can't run.
    """
    asked = os.environ.get(VARIABLE, "auto")
    if asked not in ("auto", "eager", "triton"):
        raise DdpmkitError(f"{VARIABLE}={asked} is no choice of kernels", f"{VARIABLE}=auto, eager or triton")
    if asked == "eager" or (asked == "auto" and not _compiles_for(device)):
        return False
    if _version() is not None:
        if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
            raise DdpmkitError(f"{VARIABLE}=triton runs on a CPU by interpretation alone", "set TRITON_INTERPRET=1 too")
        return True
    if asked == "triton":
        raise DdpmkitError(
            f"{VARIABLE}=triton, and triton can't be imported", f"pip install triton, or {VARIABLE}=auto"
        )
    return False


# What torch.compiler.assume_constant_result does, which imports the whole compiler: asked once, while it traces.
fused._dynamo_marked_constant = True  # type: ignore[attr-defined]


def said(device: torch.device) -> str | None:
    """What a fingerprint says of the kernels: "triton 3.7.0" or "eager"; None where there is no choice."""
    if fused(device):
        return f"triton {_version()}"
    return "eager" if device.type == "cuda" else None


def power_of_two(n: int) -> int:
    """Return the smallest power of two from n up: the size of a tile that holds n."""
    return 1 << max(0, n - 1).bit_length()


def _compiles_for(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.cuda is None:  # AMD's GPUs are called cuda too, and were never looked at
        return False
    return torch.cuda.get_device_capability(device) >= CAPABILITY


@functools.cache
def _version() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)
