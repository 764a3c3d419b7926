"""Read and plan a study, try its parts, and find what of it is still to do. Nothing runs.

Nothing is written but decoded images, which later plans and all workers share (study/kept.py).
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import changes, spec
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.asked import asked_for
from ddpmkit.study.config import Study
from ddpmkit.study.excluded import excluded_lines
from ddpmkit.study.grids import There, added
from ddpmkit.study.kept import keep
from ddpmkit.study.missing import known_study
from ddpmkit.study.narrow import refuse_large
from ddpmkit.study.orderings_planned import outside, with_columns, with_known
from ddpmkit.study.plan import Plan, Refused, make_plan
from ddpmkit.study.precision import resolved
from ddpmkit.study.settings import Compile
from ddpmkit.study.stage import Stage
from ddpmkit.study.store import Store
from ddpmkit.study.study_name import grown, moved_since
from ddpmkit.study.tried import keeps_its_own, try_parts
from ddpmkit.study.trunks import spare_trunks
from ddpmkit.study.values import LARGEST


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
        yes: whether a study may ask for more results than :data:`ddpmkit.study.values.LARGEST`.
        per_device: workers a device, where ``jobs`` says no number.
        timeout: seconds that one attempt at a stage may take.
        retries: how often a stage that failed is tried again.
        canary: whether the first cell runs before all others, and these only if it ends well.
        stop_after: how many stages may fail in the same way before the run stops.
        elsewhere: whether the executor finds GPUs on other machines; :func:`prepare` asks it.
    """

    jobs: int | None = None
    device: str = "auto"
    executor: str = "local"
    checkpoint_every: int = 500
    steal: bool = False
    compile: str = "auto"
    yes: bool = field(default=False, kw_only=True)
    per_device: int | None = field(default=None, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    retries: int = field(default=0, kw_only=True)
    canary: bool = field(default=False, kw_only=True)
    stop_after: int | None = field(default=None, kw_only=True)
    elsewhere: bool = field(default=False, kw_only=True)

    def devices(self) -> tuple[str, ...]:
        """Return the devices to spread workers over; what this machine has, where GPUs are asked for and elsewhere.

        Raises:
            DdpmkitError: when the device is not here.
        """
        try:
            return device_names(self.device)
        except DdpmkitError:
            if not (self.elsewhere and self.device.startswith("cuda")):
                raise
            return device_names("auto")

    def workers(self) -> int:
        """Return the number of workers."""
        devices = self.devices()
        if self.per_device is not None:
            return self.jobs or len(devices) * self.per_device
        return self.jobs or (cores() if devices == ("cpu",) else len(devices))

    def asked_jobs(self) -> int | None:
        """Return the number of workers that was asked for; None where this machine alone says how many."""
        return self.jobs if self.per_device is None else self.workers()

    def check(self, registry: Registry) -> RunOptions:
        """Return the options, with what the executor says of itself; refuse what can't run.

        Raises:
            DdpmkitError: for a number below 1, an unknown executor or choice, or a device that is not here.
        """
        counts = ("jobs", "per_device", "checkpoint_every", "stop_after")
        for flag, value in ((f"--{name.replace('_', '-')}", getattr(self, name)) for name in counts):
            if value is not None and value < 1:
                raise DdpmkitError(f"{flag} must be at least 1, got {value}", "ddpmkit ablate --help")
        if self.jobs is not None and self.per_device is not None:
            raise DdpmkitError("--jobs and --per-device both say how many workers", "keep one of the two")
        if self.retries < 0 or (self.timeout is not None and not self.timeout > 0):
            raise DdpmkitError("--retries can't be below 0, nor --timeout 0 or below", "ddpmkit ablate --help")
        if self.compile not in (choices := get_args(Compile)):
            raise DdpmkitError(f"--compile can't be '{self.compile}'", f"one of {', '.join(choices)}")
        found = replace(self, elsewhere=registry.build("executor", self.executor).elsewhere)
        found.devices()
        return found


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
    registry = registry or Registry()
    run_options = (run_options or RunOptions()).check(registry)
    store = Store(files.home(out))
    given, there, place = asked_for(options, store)
    study = known_study(given, registry, store, most=None if run_options.yes else LARGEST)
    if study.name != place:
        there = There.read(store, study.name)
    if starting and there and set(study.train_seeds) <= set(there.grid.get("train_seeds", ())):
        study = replace(study, unsaid=(*study.unsaid, "train_seeds"))
    ready = planned(study, there, store=store, registry=registry, run_options=run_options, probe=probe)
    first = {axis: spec.encode(values[0]) for axis, values in ready.study.axes.items() if len(values) > 1}
    if "baseline" in given and any(text != spec.encode(getattr(study.base, axis)) for axis, text in first.items()):
        print(f"note: the baseline stays what it was: {', '.join(map('='.join, first.items()))}", file=sys.stderr)
    return ready


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
    study = resolved(study, run_options.device)
    store.check_format()
    most = None if run_options.yes else LARGEST
    study = with_columns(study, registry)
    with changes.left_alone() if registry.foreign() else contextlib.nullcontext(), _uncollected():
        plan = _grown_plan(study, there, registry, store, pixels=probe, most=most)
        todo = _todo(plan, store, content=probe)
        if probe and (any(s.kind in ("train", "ref") for s in todo) or keeps_its_own(plan, registry)):
            # What is left is tried again, for what is to be said of it; what was refused once stays so, and this ends.
            refused: dict[tuple[Any, ...], DdpmkitError] = {}
            while found := try_parts(plan, registry):
                refused |= found
                plan = _grown_plan(study, there, registry, store, pixels=probe, most=most, refused=refused)
            todo = _todo(plan, store, content=probe)
        plan.study = study = with_known(plan, store)  # without metrics that nobody asked for, where data forbid them
    plan.data = keep(plan.data)  # of a plan that holds: what is refused leaves nothing behind
    for text in [*excluded_lines(plan), *(f"warning: {text}" for text in plan.warnings)]:
        print(text, file=sys.stderr)
    adds = tuple(added(there.grid, study.grid())) if there else ()
    said = [f"adds to study '{study.name}': {'; '.join(adds)}"] if adds else []
    moved = [] if study.tune and not study.tune.chosen else moved_since(plan, store)  # before its trials it is no plan
    for text in [*plan.notes, *outside(plan), *moved, *said]:
        print(f"note: {text}", file=sys.stderr)
    return Prepared(study, plan, store, registry, todo, run_options, there, adds, probed=probe)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage: all the small objects of a plan stay, and to go through them time and again is a fifth."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _grown_plan(
    study: Study,
    there: There | None,
    registry: Registry,
    store: Store,
    *,
    pixels: bool,
    most: int | None,
    refused: Refused | None = None,
) -> Plan:
    """Plan a study with all that is there under its name; refuse one that has become too large."""
    both = grown(study, there, store)
    cells = both.cells()
    refuse_large(len(cells), sum(len(both.seeds_of(c)) for c in cells) * len(both.sample_seeds), most)
    plan = make_plan(both, registry, store, pixels=pixels, refused=refused)
    metrics = tuple(there.grid["metrics"]) if there else plan.study.metrics
    if not study.by_default or {*metrics} == {*plan.study.metrics}:
        return plan
    # Nobody asked for metrics, so they are those that are there, each of which must be taken in every cell.
    asked = replace(study, metrics=metrics, unsaid=tuple(key for key in study.unsaid if key != "metrics"))
    return make_plan(grown(asked, there, store), registry, store, pixels=pixels, refused=refused)


def _todo(plan: Plan, store: Store, *, content: bool) -> tuple[Stage[Any], ...]:
    """Return the stages that are not done, and done ones whose output is damaged; of all of them where ``content``."""
    there = store.intact if content else store.done
    waiting = {i for i, s in plan.stages.items() if not there(s.kind, i)}
    waiting -= spare_trunks(plan.stages, {r.train for r in plan.results}, waiting)
    for stage in reversed(plan.stages.values()):  # needs come first in the plan, so last here
        if stage.id in waiting:
            waiting |= {need for kind, need in stage.needs if need not in waiting and not store.intact(kind, need)}
    return tuple(s for i, s in plan.stages.items() if i in waiting)


def device_names(name: str) -> tuple[str, ...]:
    """Return the devices to spread workers over; ``auto`` and ``cuda`` mean every GPU, ``cuda:0,cuda:1`` these two."""
    if "," in name:
        return tuple(dict.fromkeys(device for part in name.split(",") for device in device_names(part.strip())))
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
