"""Where a training begins: at the furthest step that another one with the same first steps has left, or at the first.

What that one left is copied, checkpoint and log; from there on it is a training that was stopped and goes on. So it
gives the bits of one long run, whatever was there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.study.stage import Spec, Stage
from ddpmkit.study.store import Store

if TYPE_CHECKING:
    from ddpmkit.study.work import Work

S = TypeVar("S", bound=Spec)

BEGAN = "began.json"
NETWORK = "network.json"  # of study/out_of_memory.py
PARTS = ("model.safetensors", "ema.safetensors", "optim.safetensors")


@dataclass(frozen=True)
class Began:
    """Where a training began that did not begin at its first step.

    Attributes:
        training: the id of the one that had made the steps before.
        step: their number.
        seconds: what they took, with those before which that one had not made itself.
        fingerprint: on what they were made.
    """

    training: str
    step: int
    seconds: float
    fingerprint: dict[str, Any] = field(default_factory=dict)


def began(folder: Path) -> Began | None:
    """Return where the training of a folder began; None for the first step, or where the record is damaged."""
    found = files.read_sealed(folder / BEGAN)
    try:
        return None if found is None else Began(**found)
    except TypeError:  # another ddpmkit's
        return None


def seconds_in_all(store: Store, training: str) -> float | None:
    """Return what a training took, with the steps that another one had made; None where no record says so."""
    own, before = store.status("train", training).get("seconds"), began(store.folder("train", training))
    return own if own is None or before is None else float(own) + before.seconds


def begin(w: Work, spec: S, shared: Callable[[S], int], micro_batch: int) -> int:
    """Copy the furthest step that another training shares, unless this one is further; return where it began.

    Args:
        w: The training.
        spec: Its spec.
        shared: The number of first steps that it and a training of another spec have in common.
        micro_batch: Images that it sees at once: fewer than asked for where memory ran out.
    """
    from ddpmkit.training import checkpoint

    if w.options.alone or not shared(spec):
        return 0
    own = checkpoint.newest(w.folder / "ckpt")
    told = began(w.folder)
    # The record is written before the checkpoint: a process that ended in between left it alone.
    if own is None or not own.optim or (told is not None and told.step > own.step):
        (w.folder / BEGAN).unlink(missing_ok=True)
    if own is not None and not own.optim:  # the optimiser's state was let go: it starts again
        return 0
    reached = 0 if own is None else own.step
    for step, training in sorted(_left(w, spec, shared), reverse=True):
        if step <= reached or _copied(w, training, step, micro_batch, begun=reached > 0):
            break
    found = began(w.folder)
    if found is None:
        return 0
    w.progress(0.0, note=f"goes on from step {found.step} of training {found.training[:12]}")
    if other := _elsewhere(w, found):
        w.ran["began"] = other
    return found.step


def _left(w: Work, spec: S, shared: Callable[[S], int]) -> Iterator[tuple[int, str]]:
    """The checkpoints of other trainings at steps that this one makes too, and whose they are."""
    for training in w.store.stages(spec.kind):
        if training == w.stage.id:
            continue
        with contextlib.suppress(DdpmkitError):  # a spec that is damaged, or another ddpmkit's
            other = w.store.read_spec(type(spec), training)
            steps = shared(other)
            if steps and Stage(other, {}, "", 0.0).id == training:  # else of another version
                yield from ((step, training) for step in steps_left(w.store, spec.kind, training) if step <= steps)


def steps_left(store: Store, kind: str, training: str) -> list[int]:
    """Return the steps of which a training has left a checkpoint."""
    return sorted(int(p.name) for p in (store.folder(kind, training) / "ckpt").glob("[0-9]*") if p.name.isdecimal())


def _copied(w: Work, training: str, step: int, micro_batch: int, *, begun: bool) -> bool:
    """Copy a checkpoint, and the log up to it; False where it can't be gone on from.

    It is damaged or gone then, not all of it is there, or it was not made as this training runs: with fewer images at
    once, or, where this one has ``begun``, eager and not compiled.
    """
    from safetensors.torch import load

    there = w.store.folder(w.stage.kind, training)
    place = there / "ckpt" / f"{step:08d}"
    meta = files.verify_folder(place)
    try:
        blobs = {name: (place / name).read_bytes() for name in PARTS}
    except OSError:  # the optimiser's state was let go, or somebody has just dropped the checkpoint
        return False
    every = w.options.log_every
    if step % every and step == w.stage.spec.steps:  # no step is left, and the losses of the last one are in no log
        return False
    # Between two reports the sums since the last one are there, or the next one would be of too few steps.
    if meta is None or (step % every and not load(blobs["optim.safetensors"])["sums/"].any()):
        return False
    network, own = files.read_sealed(there / NETWORK), files.read_sealed(w.folder / NETWORK)
    if network is None and (there / NETWORK).exists():  # damaged: nobody knows how it ran
        return False
    asked = w.stage.spec.micro_batch
    if (network or {}).get("micro_batch", asked) < micro_batch:
        return False
    if begun and network and own and network.get("network") != own.get("network"):
        return False
    rows = [row for row in files.read_lines(there / "metrics.jsonl") if row["step"] <= step and not row["step"] % every]
    files.write_lines(w.folder / "metrics.jsonl", map(files.canonical, rows))
    if network is not None:  # it goes on as it began, eager or compiled, and with no more images at once than it can
        fewer = {"micro_batch": micro_batch} if micro_batch < asked else {}
        files.write_sealed(w.folder / NETWORK, {**network, **fewer})
    fingerprint = w.store.status(w.stage.kind, training).get("fingerprint", {})
    told = Began(training, step, _seconds(w.store, w.stage.kind, training, step), fingerprint)
    files.write_sealed(w.folder / BEGAN, asdict(told))
    files.commit_folder(w.folder / "ckpt" / place.name, blobs, meta)  # last: without it nothing has begun
    return True


def _seconds(store: Store, kind: str, training: str, step: int) -> float:
    """What the first steps of a training took, its own in proportion to those that it has made."""
    before, reached = began(store.folder(kind, training)), max(steps_left(store, kind, training), default=step)
    first, seconds = (0, 0.0) if before is None else (before.step, before.seconds)
    if step <= first:
        return seconds * step / first
    own = store.status(kind, training).get("seconds") or 0.0
    return seconds + float(own) * (step - first) / max(reached - first, 1)


def _elsewhere(w: Work, found: Began) -> str:
    """On what the steps before were made, as far as it is not what runs here; or began, if that is so."""
    from ddpmkit import device as devices

    here = {**devices.fingerprint(w.device), "began": None}
    other = {key: found.fingerprint.get(key) for key in here}
    return ", ".join(f"{key} {value}" for key, value in other.items() if value != here[key])
