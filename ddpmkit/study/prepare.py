"""Read and plan a study, try its parts, and find what of it is still to do. Nothing runs.

Nothing is written but decoded images, which later plans and all workers share (study/kept.py).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import changes, contract
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.asked import asked_for
from ddpmkit.study.config import Study
from ddpmkit.study.grids import There, added
from ddpmkit.study.kept import keep
from ddpmkit.study.metrics import of_images
from ddpmkit.study.missing import known_study
from ddpmkit.study.orderings_planned import with_columns, with_known
from ddpmkit.study.plan import Plan, make_plan
from ddpmkit.study.planning import build_without_memory, classes
from ddpmkit.study.settings import Compile
from ddpmkit.study.stage import Stage
from ddpmkit.study.store import Store
from ddpmkit.study.study_name import grown, moved_since

FEW = 12  # lines about what was excluded


@dataclass(frozen=True)
class RunOptions:
    """What may differ between two runs of one study without changing a number.

    Attributes:
        jobs: workers at once; None for one a CPU core, or one a GPU.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        executor: spec of the executor.
        checkpoint_every: steps between two checkpoints of a training.
        steal: whether stages that stand claimed when the run begins are taken from processes that may be alive, as of a
            machine that is lost; not from those that are seen to live.
        compile: whether networks are compiled: ``auto`` where that pays, ``on`` or ``off``; it moves last bits, no id.
    """

    jobs: int | None = None
    device: str = "auto"
    executor: str = "local"
    checkpoint_every: int = 500
    steal: bool = False
    compile: str = "auto"

    def devices(self) -> tuple[str, ...]:
        """Return the devices to spread workers over.

        Raises:
            DdpmkitError: when the device is not here.
        """
        return device_names(self.device)

    def workers(self) -> int:
        """Return the number of workers."""
        devices = self.devices()
        return self.jobs or (cores() if devices == ("cpu",) else len(devices))

    def check(self, registry: Registry) -> None:
        """Refuse what can't run.

        Raises:
            DdpmkitError: for a number below 1, an unknown executor or choice, or a device that is not here.
        """
        for flag, value in (("--jobs", self.jobs), ("--checkpoint-every", self.checkpoint_every)):
            if value is not None and value < 1:
                raise DdpmkitError(f"{flag} must be at least 1, got {value}", "ddpmkit ablate --help")
        if self.compile not in (choices := get_args(Compile)):
            raise DdpmkitError(f"--compile can't be '{self.compile}'", f"one of {', '.join(choices)}")
        registry.build("executor", self.executor)
        self.devices()


@dataclass(frozen=True)
class Prepared:
    """A study that has been planned and checked, and what of it is still to do. Nothing has run."""

    study: Study
    plan: Plan
    store: Store
    registry: Registry
    todo: tuple[Stage[Any], ...]
    run_options: RunOptions
    there: There | None = None  # what was there under the study's name when it was planned
    adds: tuple[str, ...] = ()  # what the study adds to that, a line each
    entered: bool = False  # whether the plan is in the study's folder
    probed: bool = True  # whether networks were tried, and may be timed

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.store.study(self.study.name)


def prepare(
    options: Mapping[str, Any],
    *,
    out: str | Path = "results",
    registry: Registry | None = None,
    run_options: RunOptions | None = None,
    probe: bool = True,
    starting: bool = False,
) -> Prepared:
    """Plan a study and find what of it is to be done. Writes nothing but decoded data.

    Args:
        options: Settings, axes, seeds; ``study`` may name a study that is there, or a .toml file that holds them, or
            ``recipe`` and ``scale`` one that is shipped; the others override it.
        out: The results folder.
        registry: The components to choose from.
        run_options: Workers, device and the like.
        probe: Whether networks are built and extractors loaded, to say now what can't work; without, a plan of built-in
            components imports no torch, and reads no pixel of data that were read before or say what it needs to know.
        starting: Whether the train seeds are those to start with, so that a study that has more by now goes on.

    Raises:
        DdpmkitError: when anything about the request is wrong.
    """
    run_options = run_options or RunOptions()
    registry = registry or Registry()
    run_options.check(registry)
    store = Store(files.home(out))
    given, there, place = asked_for(options, store)
    study = known_study(given, registry, store)
    if study.name != place:
        there = There.read(store, study.name)
    if starting and there and set(study.train_seeds) <= set(there.grid.get("train_seeds", ())):
        study = replace(study, unsaid=(*study.unsaid, "train_seeds"))
    return planned(study, there, store=store, registry=registry, run_options=run_options, probe=probe)


def prepare_study(
    study: Study, *, out: str | Path, registry: Registry, run_options: RunOptions, probe: bool = True
) -> Prepared:
    """Plan a study that has been read, and find what of it is to be done. Writes nothing but decoded data.

    Raises:
        DdpmkitError: when its name is another grid's, or it can't be planned.
    """
    store = Store(files.home(out))
    there = There.read(store, study.name)
    return planned(study, there, store=store, registry=registry, run_options=run_options, probe=probe)


def planned(
    study: Study,
    there: There | None,
    *,
    store: Store,
    registry: Registry,
    run_options: RunOptions,
    probe: bool = True,
) -> Prepared:
    """Plan a study beside what is there under its name, which it adds to. Writes nothing but decoded data.

    Raises:
        DdpmkitError: when it would drop or change some of that, or can't be planned.
    """
    for field in ("precision", "eval_precision"):
        if {getattr(study.base, field), *study.axes.get(field, ())} != {"fp32"}:
            study = _resolve_precision(study, field, run_options.device)
    store.check_format()
    study = with_columns(study, registry)
    with changes.left_alone() if registry.foreign() else contextlib.nullcontext():
        plan = _grown_plan(study, there, registry, store, pixels=probe)
        plan.study = study = with_known(plan, store)  # without metrics that nobody asked for, where data forbid them
        todo = _todo(plan, store, content=probe)
        if probe and (any(s.kind in ("train", "ref") for s in todo) or _keeps_its_own(plan, registry)):
            _try_parts(plan, registry)
    plan.data = keep(plan.data)  # of a plan that holds: what is refused leaves nothing behind
    for text in [*excluded_lines(plan), *(f"warning: {text}" for text in plan.warnings)]:
        print(text, file=sys.stderr)
    adds = tuple(added(there.grid, study.grid())) if there else ()
    said = [f"adds to study '{study.name}': {'; '.join(adds)}"] if adds else []
    for text in [*plan.notes, *moved_since(plan, store), *said]:
        print(f"note: {text}", file=sys.stderr)
    return Prepared(study, plan, store, registry, todo, run_options, there, adds, probed=probe)


def _grown_plan(study: Study, there: There | None, registry: Registry, store: Store, *, pixels: bool) -> Plan:
    """Plan a study with all that is there under its name."""
    plan = make_plan(grown(study, there, store), registry, store, pixels=pixels)
    metrics = tuple(there.grid["metrics"]) if there else plan.study.metrics
    if not study.by_default or {*metrics} == {*plan.study.metrics}:
        return plan
    # Nobody asked for metrics, so they are those that are there, each of which must be taken in every cell.
    asked = replace(study, metrics=metrics, unsaid=tuple(key for key in study.unsaid if key != "metrics"))
    return make_plan(grown(asked, there, store), registry, store, pixels=pixels)


def excluded_lines(plan: Plan) -> list[str]:
    """Say which cells are impossible and why: each of a few, of many the number and the first for each reason."""
    if len(plan.excluded) <= FEW:
        return [f"excluded: {label}: {reason}" for label, reason in plan.excluded]
    by_reason: dict[str, list[str]] = {}
    for label, reason in plan.excluded:
        by_reason.setdefault(reason, []).append(label)
    said = [
        f"excluded: {labels[0]}" + (f" and {len(labels) - 1} more cells" if len(labels) > 1 else "") + f": {reason}"
        for reason, labels in by_reason.items()
    ]
    left = sum(len(labels) for labels in list(by_reason.values())[FEW:])
    return [*said[:FEW], f"excluded: {left} more cells, for other reasons"] if left else said


def _todo(plan: Plan, store: Store, *, content: bool) -> tuple[Stage[Any], ...]:
    """Return the stages that are not done, and done ones whose output is damaged; of all of them where ``content``."""
    there = store.intact if content else store.done
    waiting = {i for i, s in plan.stages.items() if not there(s.kind, i)}
    for stage in reversed(plan.stages.values()):  # needs come first in the plan, so last here
        if stage.id in waiting:
            waiting |= {need for kind, need in stage.needs if need not in waiting and not store.intact(kind, need)}
    return tuple(s for i, s in plan.stages.items() if i in waiting)


def _try_parts(plan: Plan, registry: Registry) -> None:
    """Build every backbone on no device and load every extractor: what can't work is said before anything runs."""
    images = plan.images
    asked = dict.fromkeys(
        (s.backbone, registry.build("sigma", s.sigma).learned, s.dropout, classes(s, images))
        for s in (c.settings for c in plan.cells)
    )
    for text, learned, dropout, of_labels in asked:
        backbone = registry.build("backbone", text)
        layers = contract.dropout_layers(build_without_memory(backbone, images, learned=learned, classes=of_labels))
        rates = sorted({rate for layer, attribute in layers if (rate := getattr(layer, attribute)) > 0})
        if dropout and not layers:
            raise DdpmkitError(
                f"backbone '{backbone.name}' has no dropout layer that --dropout {dropout:g} could set",
                "leave out --dropout, or give the network an nn.Dropout",
            )
        if dropout is None and rates:
            told = ", ".join(f"{rate:g}" for rate in rates)
            plan.warn(f"backbone '{backbone.name}' keeps its own dropout of {told}; --dropout sets all layers")
    if of_images(plan.study.metrics):
        for text in plan.study.features:
            contract.extractor(registry.build("features", text), images)


def _keeps_its_own(plan: Plan, registry: Registry) -> bool:
    """Whether a plugin's network may drop out by rates of its own, which a report is to say, run or not."""
    left = dict.fromkeys(c.settings.backbone for c in plan.cells if c.settings.dropout is None)
    return not all(registry.is_builtin(registry.build("backbone", text)) for text in left)


def _resolve_precision(study: Study, field: str, device: str) -> Study:
    """Replace ``auto`` by what the device offers, and refuse what it does not."""
    from ddpmkit import device as devices

    where = devices.resolve(device)
    axes, learns = dict(study.axes), field == "precision"
    if field in axes:
        axes[field] = tuple(dict.fromkeys(devices.precision(v, where, learns=learns) for v in axes[field]))
    found: dict[str, Any] = {field: devices.precision(getattr(study.base, field), where, learns=learns)}
    return replace(study, base=replace(study.base, **found), axes=axes)


def device_names(name: str) -> tuple[str, ...]:
    """Return the devices to spread workers over; ``auto`` and ``cuda`` mean every GPU."""
    if name == "cpu" or (name == "auto" and sys.platform == "linux" and not Path("/dev/nvidiactl").exists()):
        return ("cpu",)  # known without importing torch
    import torch

    from ddpmkit.device import resolve

    device = resolve(name)
    if device.type == "cuda" and device.index is None:
        return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    return (str(device),)


def cores() -> int:
    """Return the number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
