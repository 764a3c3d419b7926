"""Which stage may run next: those whose needs are met, the longest kind first."""

from __future__ import annotations

from collections.abc import Iterable

from ddpmkit.study.plan import Stage

# Long stages first keep all workers busy to the end; the reference is short, and much waits for it.
PRIORITY = {"ref": 0, "train": 1, "fit": 2, "sample": 3, "draw": 4, "nll": 5, "score": 6}


class ReadyQueue:
    """The stages of one run, handed out as their needs are met."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self._waiting = {s.id: s for s in stages}
        self._unmet = {s.id: {need for _, need in s.needs if need in self._waiting} for s in self._waiting.values()}

    def next(self) -> Stage | None:
        """Take the next stage that can run, or None when none can right now."""
        ready = [s for i, s in self._waiting.items() if not self._unmet[i]]
        if not ready:
            return None
        chosen = min(ready, key=lambda s: PRIORITY.get(s.kind, 9))
        return self._waiting.pop(chosen.id)

    def put_back(self, stage: Stage) -> None:
        """Take a stage back that was handed out and not run."""
        self._waiting[stage.id] = stage

    def finished(self, stage: Stage, *, ok: bool) -> None:
        """Release what waited for a stage, or block it when the stage has no output."""
        if ok:
            for unmet in self._unmet.values():
                unmet.discard(stage.id)
