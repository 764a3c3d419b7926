"""Stages that can't succeed: their data set is none. How an executor tells of them is all that is asked."""

from __future__ import annotations

from ddpmkit.plugin.execution import Task


def doomed(count: int) -> list[Task]:
    """Return so many stages, each of its own id, whose data set is not to be found."""
    from ddpmkit.study.stage import Stage
    from ddpmkit.study.stages.ref import Ref

    features = {"kind": "features", "name": "none"}
    stages = (
        Stage(Ref(data=f"{k}", split="test", metrics=(), features=features, samples=2), {}, f"doomed {k}", 1.0)
        for k in range(count)
    )
    return [Task(stage.id, stage.kind, stage.label, stage.json()) for stage in stages]
