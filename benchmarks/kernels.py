"""How long does each fused kernel take against plain torch?

    python benchmarks/kernels.py          # on an NVIDIA GPU; needs triton
    python benchmarks/kernels.py --dry    # anywhere: tiny sizes, one repetition, figures that mean nothing

The shapes are those of the Ho network at batch 128. Each row is the median of alternating blocks (forward and backward
together for the norm), in milliseconds; compiling is not counted, and printed at the end.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from ddpmkit import group_norm_silu
from ddpmkit.randomness import normal, stream_key, uniform

SHAPES = ((128, 32), (384, 32), (256, 16), (512, 16), (256, 8), (256, 4))  # channels, side


def timed(run: Callable[[], object], repeat: int) -> float:
    """Milliseconds a call."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    wait()
    started = time.perf_counter()
    for _ in range(repeat):
        run()
    wait()
    return (time.perf_counter() - started) / repeat * 1e3


def row(name: str, run: Callable[[], object], modes: tuple[str, ...], blocks: int, repeat: int) -> None:
    """Print the medians of one kernel and of its twin."""
    found: dict[str, list[float]] = {mode: [] for mode in modes}
    for block in range(blocks + 1):
        for mode in modes:
            os.environ["DDPMKIT_KERNELS"] = mode
            took = timed(run, repeat if block else 1)
            if block:  # the first compiles and warms up
                found[mode].append(took)
    middle = [statistics.median(found[mode]) for mode in modes]
    spread = max((max(f) - min(f)) / statistics.median(f) for f in found.values())
    print(f"| {name} | " + " | ".join(f"{m:.3f}" for m in middle) + f" | {spread:.0%} |", flush=True)


def norm_of(batch: int, channels: int, side: int, kind: torch.dtype, last: bool, device: str) -> Callable[[], object]:
    """A norm with scale and shift, SiLU and all gradients."""
    norm = nn.GroupNorm(channels // 4 if channels < 128 else 32, channels).to(device)
    form = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(batch, channels, side, side, device=device, dtype=kind).to(memory_format=form).requires_grad_()
    scale, shift = (torch.randn(batch, channels, device=device, dtype=kind, requires_grad=True) for _ in range(2))
    dy = torch.randn_like(x)

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=kind is torch.bfloat16):
            y = group_norm_silu(norm, x, scale=scale, shift=shift).to(kind)
        torch.autograd.grad(y, (x, scale, shift, norm.weight, norm.bias), dy)

    return run


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dry", action="store_true")
    dry = parser.parse_args().dry
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not dry and device == "cpu":
        parser.error("no GPU is here; try --dry")
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        import triton
    except ImportError:
        triton = None
    modes = ("eager", "triton") if triton else ("eager",)
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, torch {torch.__version__}, triton {triton.__version__ if triton else 'not here'}\n")
    print(
        f"| kernel | {' | '.join(f'{m}, ms' for m in modes)} | spread |\n|:--|{'--:|' * (len(modes) + 1)}", flush=True
    )
    batch, shapes, blocks, repeat = (1, ((8, 4),), 1, 1) if dry else (128, SHAPES, 5, 30)
    started = time.perf_counter()
    for kind in (torch.bfloat16, torch.float32):
        for channels, side in shapes:
            for last in (False, True):
                run = norm_of(batch, channels, side, kind, last, device)
                title = f"norm {batch}x{channels}x{side}x{side} {str(kind)[6:]} {'NHWC' if last else 'NCHW'}"
                row(title, run, modes, blocks, repeat)
    key, index = stream_key(0, "noise"), torch.arange(batch, device=device)
    for shape in ((1, 8, 8), (3, 32, 32))[: 1 if dry else 2]:
        row(f"normal {batch}x{shape}", lambda shape=shape: normal(key, index, shape, 1), modes, blocks, repeat)
    row(f"uniform {batch}", lambda: uniform(key, index, 1), modes, blocks, repeat)
    print(f"\n{time.perf_counter() - started:.0f} s in all, compiling included")
    if device == "cuda" and triton:
        os.environ["DDPMKIT_KERNELS"] = "triton"
        from ddpmkit.randomness import differing

        print(f"{differing(torch.device(device))} from those of plain torch on this device")


if __name__ == "__main__":
    main()
