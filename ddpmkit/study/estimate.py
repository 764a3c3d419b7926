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
from ddpmkit.study.planning import build_without_memory, network
from ddpmkit.study.prepare import Prepared
from ddpmkit.study.queue import makespan
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.stages.train import Train
from ddpmkit.study.trash import size_of

PROBE = 3  # timed steps, after one to warm up
SHORTER = 10  # a stage so many times as short says no pace: it was its start, loading and compiling, that took time
ALIKE = 5  # finished stages of one shape that are looked at for their size

Shape = tuple[str, str, float]  # the kind of a stage, its network, its work
Seen = Mapping[tuple[str, str], list[tuple[float, float]]]  # kind, network -> work and seconds per unit of it


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

    Seconds per unit of work come from finished stages of the same backbone in this store that did a tenth of the work
    or more; where there are none, a few steps of each backbone are timed on the device, unless nothing was to be tried:
    their time is not known then.
    Bytes come from finished stages of the same work, or from the number of parameters and of pixels.
    """
    store, plan = prepared.store, prepared.plan
    known: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    folders: dict[Shape, list[Path]] = defaultdict(list)
    for path in store.root.glob("*/*/*/status.json"):
        record = files.read_sealed(path) or {}
        if record.get("state") == "done" and record.get("work") and record.get("seconds"):
            kind, name = path.parts[-4], _backbone(record["how"])
            known[kind, name].append((record["work"], record["seconds"] / record["work"]))
            folders[kind, name, record["work"]].append(path.parent)
    devices, workers = prepared.run_options.devices(), prepared.run_options.workers()
    probed: dict[str, tuple[float, float] | None] = {}
    paces = {s.id: _pace(s, known, probed, prepared, devices[0]) for s in prepared.todo}
    unknown = {i for i, pace in paces.items() if pace is None}
    seconds = {s.id: s.work * (paces[s.id] or 0.0) for s in prepared.todo}
    size = _size(prepared, folders)
    kinds: dict[str, dict[str, float | None]] = {}
    for kind in {s.kind for s in plan.stages.values()}:
        stages = [s for s in prepared.todo if s.kind == kind]
        each = float(np.mean([seconds[s.id] for s in stages])) if stages else 0.0
        told = unknown.isdisjoint(s.id for s in stages)
        kinds[kind] = {
            "each": each if told else None,
            "together": makespan(stages, seconds, workers) if told else None,
        }
    if unknown:
        return Guess(
            None, workers, "not timed: no finished stage here of about this length has this network", kinds, size
        )
    basis = f"from {PROBE} timed steps of the network" if probed else "from stages that ran here before"
    whole = makespan(prepared.todo, seconds, workers)
    return Guess(whole, workers, basis if prepared.todo else "nothing to do", kinds, size)


def _size(prepared: Prepared, folders: Mapping[Shape, list[Path]]) -> int | None:
    """Bytes that the stages still to do will take; what is no network and no image is small beside them."""
    like = {shape: median(map(size_of, some[:ALIKE])) for shape, some in folders.items()}
    parameters: dict[str, int] = {}
    total = 0.0
    for stage in prepared.todo:
        name = _backbone(stage.recipe)
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


def _pace(
    stage: Stage[Any],
    known: Seen,
    probed: dict[str, tuple[float, float] | None],
    prepared: Prepared,
    device: str,
) -> float | None:
    """Seconds per unit of work of a stage; None where they are not known and not to be found out."""
    name = _backbone(stage.recipe)
    if seen := [pace for work, pace in known.get((stage.kind, name), ()) if work * SHORTER >= stage.work]:
        return float(np.median(seen))
    if stage.spec.cost == "moment":
        return 1e-4  # features of one image by a small network, sums over draws; a moment beside the rest
    if name not in probed:
        probed[name] = _remembered_probe(stage, prepared, device)
    paces = probed[name]
    return None if paces is None else paces[0 if stage.spec.cost == "training" else 1]


def _backbone(recipe: dict[str, dict[str, object]]) -> str:
    return (
        files.canonical(recipe["backbone"]["params"]) + str(recipe["backbone"]["name"]) if "backbone" in recipe else ""
    )


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
            for step in range(PROBE + 1):
                if step == 1:
                    started = time.perf_counter()
                with torch.set_grad_enabled(learns):
                    out = net(x, t)
                    if learns:
                        out.square().mean().backward()
                        optimizer.step()
                        optimizer.zero_grad()
            float(out.detach().sum())  # wait for the device
            paces.append((time.perf_counter() - started) / (PROBE * batch))
    return paces[0], paces[1]
