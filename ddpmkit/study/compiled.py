"""How a stage runs its network, eager or compiled, and how that is kept: the same for as long as a training goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ddpmkit import files
from ddpmkit.study.out_of_memory import told as told_by

if TYPE_CHECKING:
    import torch

    from ddpmkit.plugin.interfaces import Images
    from ddpmkit.study.work import Work
    from ddpmkit.training.config import TrainConfig

BACKWARDS = 2  # a gradient costs twice what the answer does


def prepare_training(w: Work, net: torch.nn.Module, config: TrainConfig, images: Images, classes: int | None) -> None:
    """Compile a network that is to be trained, where that is asked for or pays, and say in the record which ran.

    A training that goes on runs as it began, whatever is asked for now: it then equals one that was never stopped.
    """
    from ddpmkit import device as devices
    from ddpmkit.compiling import COMPILED, wanted
    from ddpmkit.training import checkpoint, ema
    from ddpmkit.training.loop import set_dropout

    told, kept = told_by(w), w.folder / "ckpt"
    begun = (files.read_sealed(told) or {}).get("network") if checkpoint.newest(kept) is not None else None
    seen = config.steps * config.batch_size * (1 + BACKWARDS)

    def operations() -> float:  # counted on a copy: a norm's running mean must not see the image
        return float(seen * flops(ema.average_of(net), images, w.device, batch=config.micro_batch))

    compiles = begun == COMPILED
    if begun is None:
        compiles = wanted(w.options.compile, net, operations, w.device, learns=True)
    sizes = {config.micro_batch, config.batch_size % config.micro_batch} - {0}
    within = partial(devices.autocast, w.device, config.precision)
    net.train()
    set_dropout(net, config.dropout)  # a rate is part of what is compiled
    shown = zeros(sorted(sizes, reverse=True), images, classes, w.device)
    ran = _prepare(w, net, compiles, shown, within, learns=True)
    fewer = {"micro_batch": config.micro_batch} if config.micro_batch < w.stage.spec.micro_batch else {}
    files.write_sealed(told, {"network": ran, **fewer})
    w.ran["network"] = ran if begun in (None, ran) else f"{begun}, then {ran}"


def prepare_evaluation(
    w: Work,
    net: torch.nn.Module,
    trained: str,
    images: Images,
    classes: int | None,
    *,
    batch: int,
    precision: str,
) -> None:
    """Compile the network of a finished training for the passes of a stage, if asked or worth it; say which ran."""
    from ddpmkit import device as devices
    from ddpmkit.compiling import wanted
    from ddpmkit.study.records import TrainRecord

    record = w.store.record(TrainRecord, trained)

    def operations() -> float:
        return w.stage.work * float(record.flops) if record is not None else 0.0

    compiles = wanted(w.options.compile, net, operations, w.device, learns=False)
    within = partial(devices.autocast, w.device, precision)
    shown = zeros([batch], images, classes, w.device)
    w.ran["network"] = _prepare(w, net, compiles, shown, within, learns=False)


def _prepare(
    w: Work,
    net: torch.nn.Module,
    compiles: bool,
    shown: list[tuple[torch.Tensor, ...]],
    within: Any,
    *,
    learns: bool,
) -> str:
    """Compile a network if so; return how it runs now."""
    from ddpmkit.compiling import COMPILED, EAGER, compile_network

    if not compiles:
        return EAGER
    w.progress(0.0, note="compiling the network")
    failure = compile_network(net, shown, learns=learns, within=within)
    if failure is None:
        return COMPILED
    print(f"warning: {w.stage.label}: the network can't be compiled and runs eager: {failure}", file=sys.stderr)
    return EAGER


def zeros(
    sizes: Iterable[int], images: Images, classes: int | None, device: torch.device
) -> list[tuple[torch.Tensor, ...]]:
    """What a network is shown, of each batch size: images, times, and labels where it is told some."""
    import torch

    out: list[tuple[torch.Tensor, ...]] = []
    for size in sizes:
        x, t = torch.zeros(size, *images.train.shape[1:], device=device), torch.zeros(size, device=device)
        out.append((x, t) if classes is None else (x, t, torch.zeros(size, dtype=torch.int64, device=device)))
    return out


def flops(net: torch.nn.Module, images: Images, device: torch.device, *, batch: int = 1) -> int:
    """Floating-point operations of one network evaluation, an image, as torch counts them for a batch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ddpmkit.pixels import to_pixels

    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        x = to_pixels(torch.from_numpy(images.train[:1]).to(device), images.levels)
        net(x.repeat(batch, 1, 1, 1), torch.zeros(batch, device=device))
    return int(counter.get_total_flops()) // batch
