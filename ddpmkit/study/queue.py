"""Which stage may run next: those whose needs are met, in the order of their kinds' priority; and when all have run."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
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


def makespan(
    stages: Iterable[Stage[Any]], seconds: Mapping[str, float], workers: int, running: Collection[str] = ()
) -> float:
    """Return the seconds until all stages have run, handed out as by :class:`ReadyQueue`.

    Args:
        stages: What is left to run.
        seconds: What each will take, by its id; of one that runs, what is left of it.
        workers: How many run at once.
        running: Ids of those that run already.
    """
    waiting = {s.id: s for s in stages}
    unmet = {i: {need for _, need in s.needs if need in waiting} for i, s in waiting.items()}
    follow: dict[str, list[str]] = defaultdict(list)
    for i, needs in unmet.items():
        for need in needs:
            follow[need].append(i)
    order = {i: (i not in running, s.spec.priority, place) for place, (i, s) in enumerate(waiting.items())}
    ready = [(order[i], i) for i, needs in unmet.items() if not needs]
    heapq.heapify(ready)
    now = 0.0
    busy: list[tuple[float, str]] = []  # when a worker is free again, and the stage that it runs
    while ready or busy:
        while ready and len(busy) < workers:
            _, stage = heapq.heappop(ready)
            heapq.heappush(busy, (now + seconds[stage], stage))
        now, ended = heapq.heappop(busy)
        for other in follow[ended]:
            unmet[other].discard(ended)
            if not unmet[other]:
                heapq.heappush(ready, (order[other], other))
    return now
