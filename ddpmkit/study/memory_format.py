"""In which layout of images a GPU trains a network faster: timed once a network and machine, and kept in the store.

Convolutions mostly prefer channels last and norms often do not, so that neither is to be believed. What was found first
holds for all trainings of a store, since it moves the last bits: a training that is resumed has the one it began with.
"""

from __future__ import annotations

import contextlib
import copy
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddpmkit import device as devices
from ddpmkit import files, recording
from ddpmkit.study.work import Work

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
LOSS = 0.95  # the other layout is taken only where it takes less than this share of the time: timings are noisy
REPEATS = 5


def placed(net: nn.Module, w: Work, shape: tuple[int, ...], batch: int, precision: str) -> nn.Module:
    """Return a network on the device of its stage, on CUDA in the layout in which it trains faster, as ``w.ran`` says.

    Args:
        net: On the CPU.
        w: The stage.
        shape: Of one image.
        batch: Images it sees at once.
        precision: Of the training.
    """
    if w.device.type != "cuda":
        return devices.place(net, w.device)
    machine = torch.cuda.get_device_name(w.device), torch.__version__, platform.node()
    asked = [w.stage.recipe["backbone"], shape, batch, precision, machine]
    probe = copy.deepcopy(net).to(w.device)
    name = remembered(w.store.root, asked, lambda: faster(lambda f: seconds(probe, f, shape, batch, precision)))
    w.ran["memory_format"] = name
    return in_format(net.to(w.device), name)


def in_format(net: nn.Module, name: str) -> nn.Module:
    """Return the network with its weights in a layout, ``channels_last`` or ``contiguous``."""
    return net.to(memory_format=FORMATS[name])  # type: ignore[call-overload,no-any-return]


def faster(seconds_in: Callable[[str], float]) -> str:
    """Return the name of the layout that takes less time; channels last where they are alike."""
    return "contiguous" if seconds_in("contiguous") < LOSS * seconds_in("channels_last") else "channels_last"


def seconds(net: nn.Module, name: str, shape: tuple[int, ...], batch: int, precision: str) -> float:
    """Return the time of a forward and a backward pass in a layout, as the replay that a training makes."""
    net = in_format(net, name).train()
    device = next(net.parameters()).device
    x, t = torch.zeros(batch, *shape, device=device), torch.zeros(batch, device=device)

    def run() -> None:
        net.zero_grad(set_to_none=True)
        with devices.autocast(device, precision):
            out = net(x, t)
        out.float().square().mean().backward()

    again: Callable[[], None] = run
    recorder = recording.recorder(device) or recording.OneByOne()
    with _mode_kept(), devices.products(device, precision):  # as a training: its gradient is outside of autocast
        try:
            recorder.warm(run)
            again = recorder.record(run)
            again()
        except recording.RecordingError:  # then a training does not replay it either
            run()
        _wait(device)
        started = time.perf_counter()
        for _ in range(REPEATS):
            again()
        _wait(device)
        took = time.perf_counter() - started
    net.zero_grad(set_to_none=True)
    return took / REPEATS


def remembered(root: Path, asked: list[Any], probe: Callable[[], str]) -> str:
    """Return what was found first for a question in a store, by whatever process; ``probe`` answers where none has."""
    path = root / "layouts" / f"{files.sha256(files.canonical(asked).encode())}.json"
    known = files.read_sealed(path)
    if known is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.make_bytes(path, files.canonical({"memory_format": probe()}).encode())
        known = files.read_sealed(path)
    name = (known or {}).get("memory_format")
    return name if name in FORMATS else "channels_last"


@contextlib.contextmanager
def _mode_kept() -> Iterator[None]:
    """Put torch's deterministic mode back: that of the training is the training's own to change, and to tell of."""
    mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
