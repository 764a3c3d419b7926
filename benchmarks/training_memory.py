"""How much memory and time does a training step of a published network take on a CPU?

    python benchmarks/training_memory.py                              # the Ho network, batch 128, four ways
    python benchmarks/training_memory.py --size improved-cifar10 --batch 64

One step of the real loop on noise of CIFAR-10's shape: forward, backward, clipping, AdamW, one moving average, dropout
0.1. Each way runs in a process of its own, on one thread as trainings do; its memory is the most that the process ever
held (``ru_maxrss``), torch and all. The checksum is of the weights after the step: ways of one micro-batch must agree.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import time

import numpy as np
import torch

import ddpmkit
from ddpmkit import device as devices
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.training.config import TrainConfig
from ddpmkit.training.initialise import initialise
from ddpmkit.training.loop import Hooks, build_objective, train

CPU = torch.device("cpu")


def step(backbone: str, batch: int, micro_batch: int) -> None:
    """Take one step and print a row."""
    config = TrainConfig(
        steps=1, batch_size=batch, micro_batch=micro_batch, learning_rate=2e-4, lr_decay="constant", warmup=5000,
        weight_decay=0.0, grad_clip=1.0, emas=(0.9999,), dropout=0.1, prediction=ddpmkit.build("prediction", "eps"),
        timestep_sampling="uniform", precision="fp32", seed=0,
    )  # fmt: skip
    tables = tables_for(ddpmkit.build("schedule", "linear"), 1000)
    log_sigma2 = fixed_log_variance(ddpmkit.build("sigma", "beta"), tables)
    weighting = ddpmkit.build("weighting", "simple")
    built = ddpmkit.build("backbone", backbone)
    made = initialise(lambda: built.build(in_channels=3, out_channels=3, image_size=32), 0)
    net = devices.place(made, CPU)
    data = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1000, 3, 32, 32), dtype=np.uint8))
    objective = build_objective(tables, weighting, log_sigma2, decoder_log_variance(tables), config, 256, CPU)
    with devices.one_thread():
        started = time.perf_counter()
        train(net, data, objective, config, CPU, Hooks())
        seconds = time.perf_counter() - started
    digest = hashlib.sha256()
    for p in net.parameters():
        digest.update(p.detach().numpy().tobytes())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    print(
        f"| `{backbone}` | {sum(p.numel() for p in net.parameters()) / 1e6:.1f} | {micro_batch} | {memory:.2f} | "
        f"{seconds:.0f} | `{digest.hexdigest()[:8]}` |",
        flush=True,
    )


def main() -> None:
    """Print a row for each way, each from a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="ho-cifar10")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--one", nargs=2, metavar=("BACKBONE", "MICRO_BATCH"), help="this way alone, in this process")
    given = parser.parse_args()
    if given.one:
        step(given.one[0], given.batch, int(given.one[1]))
        return
    print("| backbone | million parameters | images at once | GiB | seconds a step | weights |", flush=True)
    print("|:--|--:|--:|--:|--:|:--|", flush=True)
    for micro_batch in (min(64, given.batch), given.batch):
        for backbone in (f"unet:size={given.size}:checkpoint=true", f"unet:size={given.size}"):
            one = ["--batch", str(given.batch), "--one", backbone, str(micro_batch)]
            subprocess.run([sys.executable, __file__, *one], check=True, env=os.environ)


if __name__ == "__main__":
    main()
