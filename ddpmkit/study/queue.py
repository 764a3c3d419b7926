"""Which stage may run next: those whose needs are met, in the order of their kinds' priority."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ddpmkit.study.stage import Stage


class ReadyQueue:
    """The stages of one run, handed out as their needs are met."""

    def __init__(self, stages: Iterable[Stage[Any]]) -> None:
        self._waiting = {s.id: s for s in stages}
        self._unmet = {s.id: {need for _, need in s.needs if need in self._waiting} for s in self._waiting.values()}

    def next(self) -> Stage[Any] | None:
        """Take the next stage that can run, or None when none can right now."""
        ready = [s for i, s in self._waiting.items() if not self._unmet[i]]
        if not ready:
            return None
        chosen = min(ready, key=lambda s: s.spec.priority)
        return self._waiting.pop(chosen.id)

    def put_back(self, stage: Stage[Any]) -> None:
        """Take a stage back that was handed out and not run."""
        self._waiting[stage.id] = stage

    def finished(self, stage: Stage[Any], *, ok: bool) -> None:
        """Release what waited for a stage, or block it when the stage has no output."""
        if ok:
            for unmet in self._unmet.values():
                unmet.discard(stage.id)
