"""Trainings at a constant rate are one training, seen at several steps; those whose rate falls at last branch off it.

Each length is a stage of its own, whose id is that of a training that was made at once: nothing of the others is in it.
They are run one after the other, so that each goes on from the one before (study/begin.py) and all together cost what
the longest does. Haegele et al. 2024 (arXiv 2405.18392).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages.train import Train
from ddpmkit.study.store import Store


def along_trunks(stages: Mapping[str, Stage[Any]]) -> dict[str, Stage[Any]]:
    """Return the stages of a plan, a trunk for each branch among them, each training behind the one it goes on from.

    The work of a training is then that of the steps that it adds.
    """
    trainings = {i: s for i, s in stages.items() if type(s.spec) is Train and s.spec.stable}
    trunks = {s.id: s for s in map(_trunk, trainings.values()) if s is not None}
    if not trainings:
        return dict(stages)
    known = {**trunks, **trainings}
    constant: dict[str, dict[int, str]] = {}  # all but the length -> length -> training
    for i, stage in known.items():
        if stage.spec.lr_decay == "constant":
            constant.setdefault(course(stage.spec), {})[stage.spec.steps] = i
    out: dict[str, Stage[Any]] = {}

    def take(i: str) -> None:
        stage = known[i]
        spec = stage.spec
        lengths = constant.get(course(spec), {})
        before = max((n for n in lengths if n <= spec.stable and n < spec.steps), default=0)
        if before:
            work = stage.work * (spec.steps - before) / spec.steps
            stage = replace(stage, follows=lengths[before], work=work)
            take(lengths[before])
        out.setdefault(i, stage)

    for i, stage in stages.items():
        if i in known:
            take(i)
        else:
            out[i] = stage
    return out


def spare_trunks(stages: Mapping[str, Stage[Any]], asked: Collection[str], waiting: Collection[str]) -> set[str]:
    """Return the trainings that only others go on from, none of which waits: nobody misses their output.

    Args:
        stages: Those of a plan.
        asked: Ids of the trainings of its results.
        waiting: Ids of the stages that have no output.
    """
    followed = {s.follows for s in stages.values() if s.follows is not None} - {*asked}
    missed = {*waiting}
    for stage in reversed([*stages.values()]):  # whoever follows stands behind
        if stage.id in followed and stage.id in missed:
            followers = [s.id for s in stages.values() if s.follows == stage.id]
            if missed.isdisjoint(followers):
                missed.discard(stage.id)
    return {*waiting} - missed


def needed_by_longer(store: Store, training: str, stays: Callable[[str], bool] = lambda _: True) -> tuple[Path, ...]:
    """Return the checkpoints of a finished training from which a longer one goes on, and no other training has them.

    At a constant rate that is the last; of a branch, what it holds of its trunk where that is not there itself. None
    where the rate falls over all steps: a longer one makes other steps from the first. ``stays`` says of another
    training whether it will still be there.
    """
    try:
        spec = store.read_spec(Train, training)
    except DdpmkitError:  # damaged, or another ddpmkit's: nobody goes on from there
        return ()
    folder = store.folder(Train.kind, training) / "ckpt"
    found = [p for p in sorted(folder.glob("[0-9]*")) if p.name.isdecimal() and int(p.name) <= spec.stable]
    whole = [p for p in found if files.verify_folder(p, contents=False) is not None]
    if not whole:
        return ()
    step = int(whole[-1].name)
    other = Stage(spec.trunk(step), {}, "", 0.0).id
    there = store.folder(Train.kind, other) / "ckpt" / whole[-1].name
    whole_there = (there / "optim.safetensors").is_file() and files.verify_folder(there, contents=False) is not None
    elsewhere = other != training and stays(other) and whole_there
    return () if elsewhere else (whole[-1],)


def _trunk(stage: Stage[Train]) -> Stage[Train] | None:
    """The training that a branch leaves; None for one that is no branch."""
    spec = stage.spec
    if not spec.cooldown:
        return None
    label = f"train trunk of {spec.stable} steps, {stage.label.removeprefix('train ')}"
    return Stage(spec.trunk(spec.stable), stage.recipe, label, stage.work * spec.stable / spec.steps)


def course(spec: Train) -> str:
    """Return all of a training but its length and how its rate falls, as text."""
    return files.canonical(spec.trunk(0).json())
