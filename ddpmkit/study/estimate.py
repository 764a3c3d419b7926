"""The time and the disk that a study may take: from stages that ran here before, or the real network, tried now."""

from __future__ import annotations

import contextlib
import platform
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ddpmkit import files
from ddpmkit.plugin.blame import blame
from ddpmkit.study.pace import Seen, seen
from ddpmkit.study.planning import build_without_memory, network
from ddpmkit.study.prepare import Prepared
from ddpmkit.study.queue import makespan
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.stages.train import Train
from ddpmkit.study.trash import size_of

PROBE = 3  # timed steps, after one to warm up
ALIKE = 5  # finished stages of one shape that are looked at for their size

MOMENT = 1e-4  # seconds: features of one image by a small network, sums over draws; a moment beside the rest
RAN, TIMED = "from stages that ran here before", f"from {PROBE} timed steps of the network"

Shape = tuple[str, str, float]  # the kind of a stage, its network, its work


@dataclass(frozen=True)
class Guess:
    """Seconds for the whole run and for each kind of stage, and where the guess comes from."""

    seconds: float | None  # None where the pace of a kind of stage is not known
    jobs: int
    basis: str
    kinds: dict[str, dict[str, float | None]]  # kind -> each, together
    size: int | None = None  # bytes that the stages to do will take; None where that is not known


def estimate(prepared: Prepared) -> Guess:
    """Estimate the time and the disk that the stages still to do will take.

    Seconds come from finished stages of the same backbone in this store, what came before their first steps apart.
    Where none made enough steps to tell, a few of each backbone are timed on the device; where nothing is to be tried,
    they are in proportion to those of a shorter stage, which is too many rather than too few, or not known.
    Bytes come from finished stages of the same work, or from the number of parameters and of pixels.
    """
    store, plan = prepared.store, prepared.plan
    folders: dict[Shape, list[Path]] = defaultdict(list)
    statuses = []
    for path in store.root.glob("*/*/*/status.json"):
        record = files.read_sealed(path) or {}
        if record.get("state") == "done" and record.get("work") and record.get("seconds"):
            kind, name = path.parts[-4], _backbone(record["how"].get("backbone"))
            statuses.append(((kind, name), record))
            folders[kind, name, record["work"]].append(path.parent)
    devices, workers = prepared.run_options.devices(), prepared.run_options.workers()
    paces = Paces(prepared, devices[0], seen(statuses))
    found = {s.id: paces.seconds(s) for s in prepared.todo}
    unknown = {i for i, took in found.items() if took is None}
    seconds = {i: took or 0.0 for i, took in found.items()}
    size = _size(prepared, folders)
    kinds: dict[str, dict[str, float | None]] = {}
    of_kind: dict[str, list[Stage[Any]]] = {s.kind: [] for s in plan.stages.values()}
    for stage in prepared.todo:
        of_kind[stage.kind].append(stage)
    for kind, stages in of_kind.items():
        each = float(np.mean([seconds[s.id] for s in stages])) if stages else 0.0
        told = unknown.isdisjoint(s.id for s in stages)
        kinds[kind] = {
            "each": each if told else None,
            "together": makespan(stages, seconds, workers) if told else None,
        }
    if unknown:
        return Guess(None, workers, "not timed: no finished stage here has this network", kinds, size)
    whole = makespan(prepared.todo, seconds, workers)
    return Guess(whole, workers, paces.basis() if prepared.todo else "nothing to do", kinds, size)


def _size(prepared: Prepared, folders: Mapping[Shape, list[Path]]) -> int | None:
    """Bytes that the stages still to do will take; what is no network and no image is small beside them."""
    like = {shape: median(map(size_of, some[:ALIKE])) for shape, some in folders.items()}
    parameters: dict[str, int] = {}
    name_of = Backbones()
    total = 0.0
    for stage in prepared.todo:
        name = name_of(stage)
        if (known := like.get((stage.kind, name, stage.work))) is not None:
            total += known
        elif isinstance(stage.spec, Sample):
            total += stage.spec.count * float(np.prod(prepared.plan.images.train.shape[1:]))
        elif isinstance(stage.spec, Train):
            if name not in parameters:
                if not prepared.probed:
                    return None
                net = build_without_memory(
                    prepared.registry.rebuild(stage.recipe["backbone"]), prepared.plan.images, learned=False
                )
                parameters[name] = sum(p.numel() for p in net.parameters())
            # The weights, AdamW's two moments, and each average, in float32.
            total += 4 * parameters[name] * (3 + len(stage.spec.emas))
    return round(total)


class Paces:
    """The seconds that stages take: as stages of their kind and network took here, else by a few timed steps."""

    def __init__(self, prepared: Prepared, device: str, known: Mapping[tuple[str, str], Seen]) -> None:
        self._prepared, self._device, self._known = prepared, device, known
        self._name_of = Backbones()
        self._probed: dict[str, tuple[float, float] | None] = {}
        self._from: dict[str, dict[str, None]] = {RAN: {}, TIMED: {}}  # where seconds come from -> kinds

    def seconds(self, stage: Stage[Any]) -> float | None:
        """Return the seconds of a stage; None where they are not known and not to be found out."""
        name, work = self._name_of(stage), stage.work
        known = self._known.get((stage.kind, name), Seen())
        if (took := known.seconds(work)) is not None:
            self._from[RAN][stage.kind] = None
            return took
        if stage.spec.cost == "moment":
            return known.beside(MOMENT, work)
        if name not in self._probed:
            self._probed[name] = _remembered_probe(stage, self._prepared, self._device)
        if (paces := self._probed[name]) is not None:
            self._from[TIMED][stage.kind] = None
            return known.beside(paces[0 if stage.spec.cost == "training" else 1], work)
        took = known.most(work)
        if took is not None:
            self._from[RAN][stage.kind] = None
        return took

    def basis(self) -> str:
        """Say where the seconds come from, by kinds of stage where from both."""
        (ran, timed) = (self._from[where] for where in (RAN, TIMED))
        if not timed:
            return RAN
        only = {kind: None for kind in timed if kind not in ran}
        return TIMED if not ran else f"{', '.join(only or timed)} {TIMED}, {', '.join(ran)} {RAN}"


class Backbones:
    """The backbones of stages as text, each written once: tens of thousands of stages of a plan share few records."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, str]] = {}  # by identity; the record is kept, so that nothing else has it

    def __call__(self, stage: Stage[Any]) -> str:
        """Return that of a stage; nothing where it has none."""
        record = stage.recipe.get("backbone")
        if id(record) not in self._known:
            self._known[id(record)] = record, _backbone(record)
        return self._known[id(record)][1]


def _backbone(record: dict[str, Any] | None) -> str:
    return "" if record is None else files.canonical(record["params"]) + str(record["name"])


def _remembered_probe(stage: Stage[Any], prepared: Prepared, device: str) -> tuple[float, float] | None:
    """Time a network once on a machine, where there is a store that can remember it: it takes longer than all else."""
    settings = prepared.study.base
    shape, batches = prepared.plan.images.train.shape[1:], [settings.batch_size, settings.micro_batch]
    asked = [stage.recipe["backbone"], shape, batches, settings.eval_batch, device, platform.node()]
    root = prepared.store.root
    path = root / "paces" / f"{files.sha256(files.canonical(asked).encode())}.json"
    known = files.read_sealed(path) or {}
    if "training" not in known or "pass" not in known:
        if not prepared.probed:
            return None
        learning, looking = _probe(stage, prepared, device)
        known = {"training": learning, "pass": looking}
        if root.is_dir():  # a dry run makes no store, though decoded images may have
            with contextlib.suppress(OSError):
                files.write_sealed(path, known)
    return known["training"], known["pass"]


def _probe(stage: Stage[Any], prepared: Prepared, device_name: str) -> tuple[float, float]:
    """Time a few training steps and forward passes; return seconds per image of each."""
    import torch

    from ddpmkit import device as devices

    device = devices.resolve(device_name)
    registry, settings = prepared.registry, prepared.study.base
    images = prepared.plan.images
    backbone = registry.rebuild(stage.recipe["backbone"])
    built = network(backbone, images, learned=False)
    with devices.one_thread(), blame("backbone", backbone.name):
        net = devices.place(built, device)
        optimizer = devices.adamw(net.parameters(), device, lr=1e-4)
        paces = []
        for batch, learns in ((min(settings.batch_size, settings.micro_batch), True), (settings.eval_batch, False)):
            x, t = torch.zeros(batch, *images.train.shape[1:], device=device), torch.zeros(batch, device=device)

            def step(x: torch.Tensor = x, t: torch.Tensor = t, learns: bool = learns) -> torch.Tensor:
                with torch.set_grad_enabled(learns):
                    out: torch.Tensor = net(x, t)
                    if learns:
                        out.square().mean().backward()
                        optimizer.step()
                        optimizer.zero_grad()
                return out.detach()

            float(step().sum())  # the device has ended what comes before the first step, which is no part of the others
            started = time.perf_counter()
            for _ in range(PROBE):
                out = step()
            float(out.sum())  # wait for the device
            paces.append((time.perf_counter() - started) / (PROBE * batch))
    return paces[0], paces[1]
