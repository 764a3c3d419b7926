"""From which step trainings went on that did not begin at their first one, counted, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ddpmkit.study.begin import began
from ddpmkit.study.store import Store

WentOn = Counter[tuple[int, int]]  # (steps of a training, the step from which it goes on) -> how many trainings


def went_on(store: Store, steps: Mapping[str, int]) -> WentOn:
    """Count the trainings that went on, as their records say.

    Args:
        store: Where they are.
        steps: id of a training -> its steps.
    """
    found = {training: began(store.folder("train", training)) for training in steps}
    return Counter((steps[i], b.step) for i, b in found.items() if b is not None)


def told(counts: WentOn) -> str:
    """Say it: ``2 of 18 steps from step 12``."""
    return ", ".join(f"{n} of {steps} steps from step {step}" for (steps, step), n in sorted(counts.items()))
