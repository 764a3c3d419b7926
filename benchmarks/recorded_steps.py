"""Are replayed training steps the steps, bit for bit, and how much faster are they?

    python benchmarks/recorded_steps.py      # on the GPU that is here; a few seconds
    python benchmarks/recorded_steps.py --backbone unet:size=ho-cifar10 --size 32 --channels 3 --batch 128

The real loop, with importance sampling, dropout 0.1, clipping, AdamW and two averages, three times from the same start:
one by one, recorded, and recorded but stopped half way and resumed. All weights and averages must be equal bit by bit.
Without a GPU a tape takes the place of CUDA graphs; it proves the same, and its times say nothing. Ends with 1 where
bits differ or nothing was recorded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ddpmkit
from ddpmkit import device as devices
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import Interrupted
from ddpmkit.recording import OneByOne, recorder, same
from ddpmkit.tape import Tape
from ddpmkit.training.config import TrainConfig
from ddpmkit.training.initialise import initialise
from ddpmkit.training.loop import Hooks, build_objective, train


def run(given: argparse.Namespace, device: torch.device, one: Any, stop: int | None = None) -> tuple[list[Any], str]:
    """Train; return the weights and averages, and how. With ``stop``, once up to there and once from there on."""
    config = TrainConfig(
        steps=given.steps, batch_size=given.batch, micro_batch=given.micro_batch or given.batch, learning_rate=2e-4,
        lr_decay="cosine", warmup=10, weight_decay=0.01, grad_clip=1.0, emas=(0.9, 0.9999), dropout=0.1,
        prediction=ddpmkit.build("prediction", "eps"), timestep_sampling="importance", precision=given.precision,
        seed=0, flip=True,
    )  # fmt: skip
    tables = tables_for(ddpmkit.build("schedule", "cosine"), 1000)
    log_sigma2 = fixed_log_variance(ddpmkit.build("sigma", "beta"), tables)
    weighting, decoder = ddpmkit.build("weighting", "simple"), decoder_log_variance(tables)
    shape = given.channels, given.size, given.size
    levels = np.random.default_rng(0).integers(0, 256, (1000, *shape), dtype=np.uint8)
    data, built = torch.from_numpy(levels).to(device), ddpmkit.build("backbone", given.backbone)
    objective = build_objective(tables, weighting, log_sigma2, decoder, config, 256, device)
    how: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for until in [stop, None] if stop else [None]:
            kinds = {"in_channels": given.channels, "out_channels": given.channels, "image_size": given.size}
            net = devices.place(initialise(lambda kinds=kinds: built.build(**kinds), 0), device)  # type: ignore[misc]
            looks = iter(range(10**9))
            hooks = Hooks(
                Path(folder) if stop else None, checkpoint_every=10**9, checkpoint_seconds=1e9, log_every=10**9,
                should_stop=lambda until=until, looks=looks: next(looks) == until,  # type: ignore[misc]
                recorder=lambda _: one, on_steps=how.append,
            )  # fmt: skip
            try:
                with devices.products(device, config.precision):  # the gradient's too
                    averages = train(net, data, objective, config, device, hooks)
            except Interrupted:
                continue
    return [v for n in (net, *averages.values()) for v in n.state_dict().values()], how[-1]


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="unet")
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    device = devices.resolve("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: a tape, whose times say nothing"
    print(f"{name}, torch {torch.__version__}, {given.backbone}, {given.steps} steps of {given.batch} images")
    print("| way | steps ran | ms a step, with the start | GiB reserved | bits |", flush=True)
    print("|:--|:--|--:|--:|:--|", flush=True)
    first, right = None, True
    ways = {
        "one by one": (OneByOne(), None),
        "recorded": (None, None),
        "recorded and resumed": (None, given.steps // 2),
    }
    with devices.one_thread(), devices.reproducible(device):
        for way, (one, stop) in ways.items():
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            started = time.perf_counter()
            weights, how = run(given, device, one or recorder(device) or Tape(), stop)
            weights = [v.cpu() for v in weights]  # waits
            each = 1000 * (time.perf_counter() - started) / given.steps
            first = first or weights
            equal = same(first, weights)
            right = right and equal and (one is not None or how.startswith("recorded"))
            memory = f"{torch.cuda.max_memory_reserved(device) / 2**30:.2f}" if device.type == "cuda" else ""
            print(f"| {way} | {how} | {each:.2f} | {memory} | {'equal' if equal else 'OTHER'} |", flush=True)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
