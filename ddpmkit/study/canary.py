"""The canary: the first cell of a study, run before all others, so that what is wrong with all shows on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddpmkit.study.plan import Plan
from ddpmkit.study.stage import Stage
from ddpmkit.study.store import Store


def canary(plan: Plan, todo: Sequence[Stage[Any]]) -> list[Stage[Any]]:
    """Return the stages to do of the first result that has any, with all that they need."""
    waiting = {s.id for s in todo}
    for result in plan.results:
        own = (result.train, result.sample, result.nll, result.nll_train, *(score for _, score, _ in result.scores))
        wanted = {stage for stage in own if stage is not None}
        for stage in reversed(plan.stages.values()):  # needs come first in the plan, so last here
            if stage.id in wanted:
                wanted |= {need for _, need in stage.needs}
        if wanted & waiting:
            return [s for s in todo if s.id in wanted]
    return []


def sick(stages: Sequence[Stage[Any]], store: Store) -> str:
    """Say that nothing else is run, where a stage of the canary has no output; nothing where all have."""
    without = next((s for s in stages if not store.done(s.kind, s.id)), None)
    if without is None:
        return ""
    state = store.status(without.kind, without.id).get("state", "not run")
    return f"the canary, {without.label}, is {state}: nothing else is run"
