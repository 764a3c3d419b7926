"""From which step the trainings of a plan go on, as far as is known before they run; and where all begin at the first.

Where one really begins it finds out when it starts, from what is in the store then (study/begin.py).
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.study.begin import steps_left
from ddpmkit.study.prepare import Prepared
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages.train import Train
from ddpmkit.study.store import Store
from ddpmkit.study.trunks import course
from ddpmkit.study.went_on import WentOn, told


def goes_on(prepared: Prepared) -> WentOn:
    """Return from which step those trainings of a plan that are to do go on from what another one has left."""
    todo = [s for s in prepared.todo if isinstance(s.spec, Train) and s.spec.stable]
    if not todo:
        return Counter()
    left, stages = _left(prepared.store), prepared.plan.stages
    out: WentOn = Counter()
    for stage in todo:
        spec, store = stage.spec, prepared.store
        found = [
            step for step, of in left[course(spec)] if of != stage.id and step <= spec.stable and step < spec.steps
        ]
        if stage.follows is not None:
            found.append(stages[stage.follows].spec.steps)
        own = max(steps_left(store, Train.kind, stage.id), default=0)
        if found and max(found) > own:
            out[spec.steps, max(found)] += 1
    return out


def apart(stages: Iterable[Stage[Any]], todo: Iterable[Stage[Any]]) -> tuple[int, ...]:
    """Return the lengths of trainings that differ in their length alone, and share no step since the rate always falls.

    Args:
        stages: All of a plan.
        todo: Those that are to do; without one of them among the trainings there is nothing to say.
    """
    falling = [stage.spec for stage in stages if _falls(stage)]
    if len({spec.steps for spec in falling}) < 2:
        return ()
    lengths: defaultdict[str, set[int]] = defaultdict(set)
    for spec in falling:
        lengths[course(spec)].add(spec.steps)
    left = {course(s.spec) for s in todo if _falls(s)}
    return tuple(sorted({n for c, many in lengths.items() if c in left and len(many) > 1 for n in many}))


def _falls(stage: Stage[Any]) -> bool:
    return isinstance(stage.spec, Train) and stage.spec.lr_decay == "cosine"


def _left(store: Store) -> defaultdict[str, list[tuple[int, str]]]:
    """The checkpoints from which other trainings can go on: course -> (step, whose)."""
    out: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for training in store.stages(Train.kind):
        with contextlib.suppress(DdpmkitError):  # a spec that is damaged, or another ddpmkit's
            spec = store.read_spec(Train, training)
            folder = store.folder(Train.kind, training) / "ckpt"
            for step in steps_left(store, Train.kind, training) if spec.stable else ():
                if step <= spec.stable and (folder / f"{step:08d}" / "optim.safetensors").is_file():
                    out[course(spec)].append((step, training))
    return out


def lines(prepared: Prepared) -> list[str]:
    """Return what a plan says of it, a line each."""
    out = []
    if counts := goes_on(prepared):
        out.append(f"goes on: trainings, {told(counts)} of what another one has left")
    if lengths := apart(prepared.plan.stages.values(), prepared.todo):
        out.append(
            f"lengths: with lr_decay=cosine each of {', '.join(map(str, lengths))} steps is trained from its first; "
            "with --axis lr_decay=constant, or cooldown, a longer one goes on from a shorter one"
        )
    return out
