"""Which stage may run next: those whose needs are met, in the order of their kinds' priority; and when all have run."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ddpmkit.study.stage import Stage


class ReadyQueue:
    """The stages of one run, handed out as their needs are met; each costs O(log n), since there may be many."""

    def __init__(self, stages: Iterable[Stage[Any]], first: Collection[str] = ()) -> None:
        """Take the stages of a run in; those whose ids are in ``first`` are handed out before all others."""
        self._stages = {s.id: s for s in stages}
        self._first = first
        self._unmet = {s.id: {need for _, need in s.needs if need in self._stages} for s in self._stages.values()}
        self._followers: dict[str, list[str]] = defaultdict(list)
        for stage, needs in self._unmet.items():
            for need in needs:
                self._followers[need].append(stage)
        self._place = {stage: place for place, stage in enumerate(self._stages)}
        self._behind = itertools.count(len(self._stages))
        self._ready: list[tuple[bool, int, int, str]] = []
        for stage in self._stages:
            self._if_ready(stage)

    def next(self) -> Stage[Any] | None:
        """Take the next stage that can run, or None when none can right now."""
        return self._stages[heapq.heappop(self._ready)[-1]] if self._ready else None

    def put_back(self, stage: Stage[Any]) -> None:
        """Take a stage back that was handed out and not run; others of its kind come before it."""
        self._place[stage.id] = next(self._behind)
        self._if_ready(stage.id)

    def finished(self, stage: Stage[Any], *, ok: bool, diverged: bool = False) -> None:
        """Release what waited for a stage, or block it when the stage has no output that it can do without."""
        for follower in self._followers[stage.id]:
            blocked = not ok and self._stages[follower].blocked_by(stage.id, diverged=diverged)
            if not blocked and stage.id in self._unmet[follower]:
                self._unmet[follower].discard(stage.id)
                self._if_ready(follower)

    def _if_ready(self, stage: str) -> None:
        if not self._unmet[stage]:
            key = (stage not in self._first, self._stages[stage].spec.priority, self._place[stage], stage)
            heapq.heappush(self._ready, key)


def makespan(
    stages: Iterable[Stage[Any]], seconds: Mapping[str, float], workers: int, running: Collection[str] = ()
) -> float:
    """Return the seconds until all stages have run, handed out by :class:`ReadyQueue`.

    Args:
        stages: What is left to run.
        seconds: What each will take, by its id; of one that runs, what is left of it.
        workers: How many run at once.
        running: Ids of those that run already.
    """
    queue, now = ReadyQueue(stages, running), 0.0
    busy: list[tuple[float, str, Stage[Any]]] = []  # when a worker is free again, and the stage that it runs
    while True:
        while len(busy) < workers and (stage := queue.next()) is not None:
            heapq.heappush(busy, (now + seconds[stage.id], stage.id, stage))
        if not busy:
            return now
        now, _, ended = heapq.heappop(busy)
        queue.finished(ended, ok=True)
