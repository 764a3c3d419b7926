"""Compute stages of a study again, somewhere else, and compare: what a reviewer does who doubts a table.

On hardware and libraries as they were every byte must be the same. Elsewhere the last bits differ, so what is compared
there does not grow them: metrics and bounds from the stored samples and draws, and the first losses of a training.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.execute import execute
from ddpmkit.study.needs import Key
from ddpmkit.study.records import RefRecord, TrainRecord
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages import read_stage
from ddpmkit.study.stages.nll import Nll
from ddpmkit.study.stages.ref import Ref
from ddpmkit.study.stages.score import Score
from ddpmkit.study.store import Store, find_study

FROM_STORED = (Ref.kind, Nll.kind, Score.kind)  # arithmetic on what is stored: no walk, no training
TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-3  # of numbers elsewhere: relative to the number, or to 1 where it is smaller
RESULT = "result.json"
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
        difference: the largest difference as a share of the number, or of 1 where that is smaller; 0 for equal bytes.
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
        elsewhere: finished stages whose numbers other hardware or libraries can't give back: samples, draws, fits.
        unfinished: stages that are not done, or damaged.
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
    for record in sorted(plan["stages"], key=lambda r: str(r["id"])):
        kind, id = str(record["kind"]), str(record["id"])
        if not store.intact(kind, id):
            unfinished += 1
            continue
        here = _is_here(store.status(kind, id).get("fingerprint"), fingerprint)
        if here or kind in (*FROM_STORED, TrainRecord.kind):
            can.append((read_stage(record), here))
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
        state = execute(stage, _Beside(store.out, (stage.kind, stage.id), again), registry, options, emit, stop)
        how = "first losses" if of_losses else "whole" if here else "numbers"
        if of_losses and state in ("done", "interrupted"):
            found = _losses(stored, again)
        elif state == "done":
            found = _bytes(stored, again) if here else _numbers(_record(stored), _record(again), TOLERANCE)
        else:
            error = (files.read_sealed(again / "status.json") or {}).get("error", "")
            found = (False, math.inf, f"{state}: {error}")
    same, difference, where = found
    return Verified(stage.kind, stage.id, stage.label, how, same, difference, where)


Found = tuple[bool, float, str]


def _is_here(then: Any, now: Mapping[str, Any]) -> bool:
    """Whether a stage ran on what is here; what it alone found out, how its network ran, is found out again."""
    return isinstance(then, dict) and all(then.get(key) == value for key, value in now.items())


def _bytes(stored: Path, again: Path) -> Found:
    """Compare all that was committed in both: the output, and a training's checkpoint that later stages read."""
    last = max((p.name for p in (again / "ckpt").glob("[0-9]*")), default=None)
    for part in ("out", *(() if last is None else (f"ckpt/{last}",))):
        then, now = _hashes(stored / part), _hashes(again / part)
        # ddpmkit gc takes the optimiser's state from finished trainings, and nothing else.
        for name in sorted(now if part == "out" else {*now} & {*then}):
            if then.get(name) != now[name]:
                of = _numbers(_record(stored), _record(again), 0.0)
                if name == RESULT and of[0] and _newer(_record(stored), _record(again)):
                    continue
                return False, of[1], of[2] or f"{part}/{name}"
    return True, 0.0, ""


def _hashes(folder: Path) -> dict[str, str]:
    commit = files.read_json(folder / files.COMMIT) or {}
    return {name: str(said["sha256"]) for name, said in commit.get("files", {}).items()}


def _record(folder: Path) -> Any:
    return files.read_json(folder / "out" / RESULT)


def _losses(stored: Path, again: Path) -> Found:
    """Compare the losses up to the first line that reaches so many steps; a line is the mean of the steps before it."""
    then = {row["step"]: row["loss"] for row in files.read_lines(stored / "metrics.jsonl")}
    now = {row["step"]: row["loss"] for row in files.read_lines(again / "metrics.jsonl")}
    steps = sorted({*then} & {*now})
    if not steps:
        return False, math.inf, "the log of the training has no line of the first steps"
    return _numbers({f"loss {s}": then[s] for s in steps}, {f"loss {s}": now[s] for s in steps}, LOSS_TOLERANCE)


def _newer(then: Any, now: Any) -> list[str]:
    """The fields that a stored record lacks since it is older than they are: what it does say is compared."""
    both = isinstance(then, dict) and isinstance(now, dict)
    return [name for name in RefRecord.later if name in now and name not in then] if both else []


def _numbers(then: Any, now: Any, tolerance: float) -> Found:
    """Compare two records: all that is no number exactly, numbers within a tolerance."""
    worst, where = 0.0, ""
    if newer := _newer(then, now):
        now = {name: value for name, value in now.items() if name not in newer}
    for path, a, b in _pairs(then, now):
        off = 0.0 if a == b else math.inf
        if all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b)) and a != b:
            off = abs(a - b) / max(1.0, abs(a))
        if off > worst:
            worst, where = off, f"{path}: {a!r} stored, {b!r} now"
    return worst <= tolerance, worst, where


def _pairs(then: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _pairs(then.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, (a, b) in enumerate(zip(then, now, strict=True)):
            yield from _pairs(a, b, f"{path}[{i}]")
    else:
        yield path, then, now
