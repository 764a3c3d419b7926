"""Compute stages of a study again, somewhere else, and compare: what a reviewer does who doubts a table.

On hardware and libraries as they were every byte must be the same. Elsewhere the last bits differ, so what is compared
there does not grow them: metrics and bounds from the stored samples and draws, and the first losses of a training.
"""

from __future__ import annotations

import functools
import math
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.compared import Found, newer, numbers
from ddpmkit.study.execute import execute
from ddpmkit.study.needs import Key
from ddpmkit.study.records import TrainRecord
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages import read_stage
from ddpmkit.study.stages.nll import Nll
from ddpmkit.study.stages.ref import Ref
from ddpmkit.study.stages.score import Score
from ddpmkit.study.store import Store, find_study

FROM_STORED = (Ref.kind, Nll.kind, Score.kind)  # arithmetic on what is stored: no walk, no training
TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-3  # of numbers elsewhere, as compared.py holds them; a loss to itself alone
RESULT, OPTIMISER = "result.json", "optim.safetensors"
FIRST_STEPS = 20  # of a training elsewhere; the losses are those of the first line of its log that reaches them

Ask = Callable[[], bool]


@dataclass(frozen=True)
class Verified:
    """A stage that was computed again.

    Attributes:
        kind: of the stage.
        id: of the stage.
        label: for people.
        how: ``whole`` where every byte was compared, ``numbers`` where those of the record were, ``first losses``.
        same: whether it is what the store has.
        difference: the largest difference as a share of what its number is held to, see :func:`compared.numbers`; 0 for
            equal bytes.
        where: what differs most, or how the stage ended; empty where nothing does.
    """

    kind: str
    id: str
    label: str
    how: str
    same: bool
    difference: float
    where: str = ""


@dataclass(frozen=True)
class Choice:
    """What is computed again, and what can't be.

    Attributes:
        stages: stages that were drawn, and whether each ran on what is here.
        candidates: how many there were to draw from.
        elsewhere: finished stages whose numbers other hardware or libraries can't give back: samples, draws, fits, and
            trainings for which memory ran out.
        unfinished: stages that are not done or damaged, or that read one which is.
    """

    stages: tuple[tuple[Stage[Any], bool], ...]
    candidates: int
    elsewhere: int
    unfinished: int


@dataclass(frozen=True)
class _Beside(Store):
    """The store, but for one stage, which has a folder of its own."""

    stage: Key
    place: Path

    def folder(self, kind: str, stage: str) -> Path:
        """Return the folder of a stage."""
        return self.place if (kind, stage) == self.stage else super().folder(kind, stage)

    def around(self, kind: str, stage: str) -> Path:
        """Return the folder that a stage's own lies in."""
        return self.place.parent if (kind, stage) == self.stage else super().around(kind, stage)


def choose(study: str | None, store: Store, count: int, *, seed: int, fingerprint: Mapping[str, Any]) -> Choice:
    """Draw stages of a study at random, without one twice.

    Args:
        study: Its name; the newest by default.
        store: Where it is.
        count: How many; all that there are, where there are fewer.
        seed: Of the draw.
        fingerprint: What is here, as :func:`ddpmkit.device.fingerprint` says it.

    Raises:
        DdpmkitError: when there is no such study, or nothing of it to compute again.
    """
    folder = find_study(study, store.out)
    plan = files.read_sealed(folder / "plan.json") or {}
    can: list[tuple[Stage[Any], bool]] = []
    elsewhere = unfinished = 0
    intact = functools.cache(store.intact)
    for record in sorted(plan["stages"], key=lambda r: str(r["id"])):
        kind, id = str(record["kind"]), str(record["id"])
        stage = read_stage(record)
        # Whoever reads a damaged output sets it aside, and here nothing of the store is to move.
        if not all(intact(*one) for one in ((kind, id), *stage.spec.needs)):
            unfinished += 1
            continue
        here = _is_here(store.status(kind, id), fingerprint)
        cut = kind == TrainRecord.kind and (trained := store.record(TrainRecord, id)) and trained.micro_batch
        if not cut and (here or kind in (*FROM_STORED, TrainRecord.kind)):
            can.append((stage, here))
        else:
            elsewhere += 1
    if not can:
        raise DdpmkitError(
            f"nothing of study '{folder.name}' can be computed again here: {unfinished} of its stages are not done, "
            f"{elsewhere} ran on other hardware or libraries",
            f"ddpmkit ablate {folder.name}, or ddpmkit doctor",
        )
    drawn = random.Random(seed).sample(can, min(count, len(can)))
    return Choice(tuple(drawn), len(can), elsewhere, unfinished)


def verify(
    stage: Stage[Any],
    store: Store,
    registry: Registry,
    options: StageOptions,
    *,
    here: bool,
    should_stop: Ask = lambda: False,
) -> Verified:
    """Compute a stage again in a folder that is gone afterwards, and compare; the store is only read.

    Args:
        stage: The stage.
        store: Where its output is, and what it reads.
        registry: The components.
        options: As of a run.
        here: Whether it ran on what is here, so that every byte must be the same.
        should_stop: Asked at every step.
    """
    stored = store.folder(stage.kind, stage.id)
    of_losses = stage.kind == TrainRecord.kind and not here
    seen = 0

    def emit(event: Mapping[str, Any]) -> None:
        nonlocal seen
        seen = int(event.get("step") or seen)

    def stop() -> bool:
        return should_stop() or (of_losses and seen >= FIRST_STEPS)

    with tempfile.TemporaryDirectory(prefix="ddpmkit-verify-") as place:
        again = Path(place) / "stage"
        beside = _Beside(store.out, (stage.kind, stage.id), again)
        # A training from its first step: one that goes on from a stored checkpoint would prove nothing about that.
        alone = replace(options, alone=True, compile=_compiles(store, stage) if here else options.compile)
        state = execute(stage, beside, registry, alone, emit, stop)
        how = "first losses" if of_losses else "whole" if here else "numbers"
        if of_losses and state in ("done", "interrupted"):
            found = _losses(stored, again)
        elif state == "done":
            found = _bytes(stored, again) if here else numbers(_record(stored), _record(again), TOLERANCE)
        else:
            error = (files.read_sealed(again / "status.json") or {}).get("error", "")
            found = (False, math.inf, f"{state}: {error}")
    same, difference, where = found
    return Verified(stage.kind, stage.id, stage.label, how, same, difference, where)


def _is_here(status: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether all of a stage ran on what is here, in whatever attempts, and in one way that can be asked for again.

    A layout of images is found out again: a stage's own stands where the fingerprint of a machine has the usual one.
    """
    for then in (status.get("fingerprint"), *status.get("earlier", ())):
        if not isinstance(then, dict) or any(then.get(key) != now[key] for key in now if key != "memory_format"):
            return False
        if then.get("began") or ", then " in str(then.get("network")):
            return False
    return True


def _compiles(store: Store, stage: Stage[Any]) -> str:
    """What makes a network run as it did: somebody may have asked for it, or have gone on from another training."""
    from ddpmkit.compiling import COMPILED, EAGER

    ran = store.status(stage.kind, stage.id).get("fingerprint", {}).get("network")
    return {COMPILED: "on", EAGER: "off"}.get(str(ran), "auto")


def _bytes(stored: Path, again: Path) -> Found:
    """Compare all that was committed in both: the output, and a training's checkpoint that later stages read."""
    last = max((p.name for p in (again / "ckpt").glob("[0-9]*")), default=None)
    for part in ("out", *(() if last is None else (f"ckpt/{last}",))):
        then, now = _hashes(stored / part), _hashes(again / part)
        # ddpmkit gc takes the optimiser's state from finished trainings, and nothing else.
        for name in sorted(now if part == "out" else {*now} & {*then}):
            if then.get(name) != now[name]:
                of = numbers(_record(stored), _record(again), 0.0)
                if name == RESULT and of[0] and newer(_record(stored), _record(again)):
                    continue
                if name == OPTIMISER and _same_optimiser(stored / part / name, again / part / name):
                    continue
                return False, of[1], of[2] or f"{part}/{name}"
    return True, 0.0, ""


def _hashes(folder: Path) -> dict[str, str]:
    commit = files.read_json(folder / files.COMMIT) or {}
    return {name: str(said["sha256"]) for name, said in commit.get("files", {}).items()}


def _same_optimiser(then: Path, now: Path) -> bool:
    """Whether two states are the same but for the sums of the log, which trainings of before lengths kept otherwise."""
    from safetensors.torch import load

    a, b = ({k: v for k, v in load(path.read_bytes()).items() if k != "sums/"} for path in (then, now))
    return a.keys() == b.keys() and files.pack(a) == files.pack(b)


def _record(folder: Path) -> Any:
    return files.read_json(folder / "out" / RESULT)


def _losses(stored: Path, again: Path) -> Found:
    """Compare the losses up to the first line that reaches so many steps; a line is the mean of the steps before it."""
    then = {row["step"]: row["loss"] for row in files.read_lines(stored / "metrics.jsonl")}
    now = {row["step"]: row["loss"] for row in files.read_lines(again / "metrics.jsonl")}
    steps = sorted({*then} & {*now})
    if not steps:
        return False, math.inf, "the log of the training has no line of the first steps"
    return numbers({f"loss {s}": then[s] for s in steps}, {f"loss {s}": now[s] for s in steps}, LOSS_TOLERANCE, 0.0)
