"""ddpmkit as its studies run it: the training loop and the walk, told of from outside alone."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from cases import Case

import ddpmkit
from ddpmkit import device as devices
from ddpmkit.diffusion.denoise import predictor
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, log_bounds, tables_for
from ddpmkit.recording import replayed
from ddpmkit.sampling import sample, with_sigma
from ddpmkit.training.config import TrainConfig
from ddpmkit.training.initialise import initialise
from ddpmkit.training.loop import Hooks, build_objective, train

Block = Callable[[], tuple[float, float, float]]  # -> (CPU seconds, wall seconds) a step, and the loss


@dataclass(frozen=True)
class Contender:
    """A network and what a block of it does."""

    parameters: int
    block: Block


def network(case: Case, device: torch.device) -> torch.nn.Module:
    """Build the case's network as a training does."""
    c, h, w = case.shape
    backbone = ddpmkit.build("backbone", case.ours)
    made = initialise(lambda: backbone.build(in_channels=c, out_channels=c, image_size=h if h == w else (h, w)), 0)
    return devices.place(made, device)


def config(case: Case, precision: str, **more: object) -> TrainConfig:
    """The course of a training of the case."""
    known = {f.name for f in fields(TrainConfig)}
    stated = {
        "steps": case.steps, "batch_size": case.batch, "micro_batch": case.batch, "learning_rate": 2e-4,
        "lr_decay": "constant", "warmup": 10, "weight_decay": 0.0, "grad_clip": 1.0, "emas": (case.ema,),
        "dropout": 0.0, "prediction": ddpmkit.build("prediction", "eps"), "timestep_sampling": "uniform",
        "precision": precision, "seed": 0, **more,
    }  # fmt: skip
    return TrainConfig(**{k: v for k, v in stated.items() if k in known})  # type: ignore[arg-type]


def objective(case: Case, settings: TrainConfig, device: torch.device) -> object:
    """The plain loss on the linear schedule."""
    tables = tables_for(ddpmkit.build("schedule", "linear"), 1000)
    log_sigma2 = log_bounds(ddpmkit.build("sigma", "beta-tilde"), tables)[1]
    decoder = decoder_log_variance(tables, "tilde2")
    return build_objective(
        tables, ddpmkit.build("weighting", "simple"), log_sigma2, decoder, settings, case.levels, device
    )


def images(case: Case, device: torch.device, count: int = 1024) -> torch.Tensor:
    """Noise of the case's shape, uint8 levels: no contender's step depends on what the images show."""
    data = np.random.default_rng(0).integers(0, case.levels, (count, *case.shape), dtype=np.uint8)
    return torch.from_numpy(data).to(device)


def compile_here(
    net: torch.nn.Module, case: Case, batch: int, device: torch.device, precision: str, *, learns: bool
) -> None:
    """Compile a network as ``--compile on`` does.

    Raises:
        RuntimeError: where this version of ddpmkit has no such option, or the compiler fails.
    """
    if importlib.util.find_spec("ddpmkit.compiling") is None:
        raise RuntimeError("this version of ddpmkit has no --compile")
    compiling: Any = importlib.import_module("ddpmkit.compiling")
    shown = torch.zeros(batch, *case.shape, device=device), torch.zeros(batch, device=device)
    with devices.reproducible(device):  # a part of what is compiled, and how the blocks run
        why = compiling.compile_network(net, [shown], learns=learns, within=lambda: devices.autocast(device, precision))
    if why is not None:
        raise RuntimeError(why)


def training(case: Case, device: torch.device, *, precision: str = "fp32", compiled: bool = False) -> Contender:
    """The training loop as a study runs it; a block is one call of it, its first steps not counted.

    On a GPU the host waits for the device twice a block alone, as a study does every fifty steps.
    """
    net, data = network(case, device), images(case, device)
    if compiled:
        compile_here(net, case, case.batch, device, precision, learns=True)
    lead = case.steps if device.type == "cuda" else 1
    settings = config(case, precision, steps=case.steps + lead)
    goal = objective(case, settings, device)

    def block() -> tuple[float, float, float]:
        marks: list[tuple[float, float, float]] = []

        def told(progress: object) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize()
            marks.append((time.process_time(), time.perf_counter(), progress.loss))  # type: ignore[attr-defined]

        hooks = Hooks(log_every=lead, on_progress=told)
        with devices.reproducible(device):
            train(net, data, goal, settings, device, hooks)  # type: ignore[arg-type]
        (cpu0, wall0, _), (cpu1, wall1, loss) = marks[0], marks[-1]
        return (cpu1 - cpu0) / case.steps, (wall1 - wall0) / case.steps, loss

    return Contender(sum(p.numel() for p in net.parameters()), block)


def sampling(case: Case, device: torch.device, *, precision: str = "fp32", compiled: bool = False) -> Contender:
    """The walk as a study runs it; a block is a batch of images in so many evaluations, and has no loss."""
    net = network(case, device).eval()
    if compiled:
        compile_here(net, case, case.drawn, device, precision, learns=False)
    tables = tables_for(ddpmkit.build("schedule", "linear"), 1000)
    chain = tables.strided(np.linspace(0, 999, case.evaluations).round().astype(int).tolist())
    sigmas = np.sqrt(np.exp(fixed_log_variance(ddpmkit.build("sigma", "beta"), chain)))
    eps, ancestral = ddpmkit.build("prediction", "eps"), ddpmkit.build("sampler", "ancestral")
    replays = replayed(predictor(net, chain, eps, device, precision=precision), "the network")  # once, as a study does
    denoise = with_sigma(replays, sigmas)

    def block() -> tuple[float, float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        with devices.reproducible(device):
            sample(
                denoise, chain, ancestral, count=case.drawn, shape=case.shape, levels=case.levels, seed=0,
                micro_batch=case.drawn, device=device,
            )  # fmt: skip
        if device.type == "cuda":
            torch.cuda.synchronize()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return cpu / case.evaluations, wall / case.evaluations, float("nan")

    return Contender(sum(p.numel() for p in net.parameters()), block)
