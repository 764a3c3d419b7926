"""How far a run is: one state that the live display and the plain lines both read."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ddpmkit.study.kind import kinds_of
from ddpmkit.study.prepare import Prepared
from ddpmkit.study.queue import makespan
from ddpmkit.text import clock, inert


@dataclass
class Activity:
    """What one worker is doing."""

    stage: str
    kind: str
    label: str
    started: float
    done: float = 0.0
    base: float | None = None  # where it was when it began: a resumed stage has not earned all of its progress
    step: int | None = None
    loss: float | None = None
    note: str = ""


@dataclass
class Monitor:
    """Counts, activities and the time left, kept up to date by :meth:`take`."""

    prepared: Prepared
    total: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    active: dict[int, Activity] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.stages = self.prepared.plan.stages
        self.kinds = kinds_of(self.stages.values())
        self._costs = {s.kind: s.spec.cost for s in self.stages.values()}
        self.total.update(s.kind for s in self.stages.values())
        self.finished.update(s.kind for s in self.stages.values())
        self.finished.subtract(s.kind for s in self.prepared.todo)
        self._left = {s.id: s for s in self.prepared.todo}
        self._spent: dict[str, list[float]] = {}  # kind -> [seconds, units of work]
        self._places = 0  # stages at once, as far as was seen

    def take(self, event: dict[str, Any]) -> None:
        """Take one event in."""
        if event["event"] == "start":
            stage = self.stages[event["stage"]]
            self.active[event["worker"]] = Activity(stage.id, stage.kind, stage.label, time.monotonic())
            self._places = max(self._places, len(self.active))
        elif event["event"] == "requeued":
            self.active.pop(event["worker"], None)
        elif event["event"] == "progress":
            for activity in self.active.values():
                if activity.stage == event["stage"]:
                    if activity.base is None:
                        activity.base, activity.started = event["done"], time.monotonic()
                    activity.done = event["done"]
                    activity.step = event.get("step", activity.step)
                    activity.loss = event.get("loss", activity.loss)
                    activity.note = event.get("note", "")
        elif event["event"] == "end":
            stage = self.stages[event["stage"]]
            self._drop(stage.id, event["state"])
            if event["state"] != "interrupted":
                (self.finished if event["state"] == "done" else self.failed)[stage.kind] += 1
            ended = self.active.pop(event["worker"]) if event["worker"] in self.active else None
            if ended is not None and event["state"] == "done":
                spent = self._spent.setdefault(stage.kind, [0.0, 0.0])
                spent[0] += time.monotonic() - ended.started
                spent[1] += stage.work * (1 - (ended.base or 0.0))

    def _drop(self, stage: str, state: str) -> None:
        """Take a stage off what is left, and all that can't run when it has no output."""
        self._left.pop(stage, None)
        if state != "done":
            for other in [s for s in self._left.values() if s.blocked_by(stage, diverged=state == "diverged")]:
                self._drop(other.id, state)

    @property
    def nothing_left(self) -> bool:
        """Whether all that can run has run."""
        return not self._left

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    def eta(self) -> float | None:
        """Seconds left, from the pace of this run; None until a stage of every kind that is left has shown its pace."""
        pace = {kind: seconds / work for kind, (seconds, work) in self._spent.items() if work}
        now = time.monotonic()
        for a in self.active.values():
            earned = a.done - (a.base or 0.0)
            if earned > 0.005:
                pace.setdefault(a.kind, (now - a.started) / (earned * self.stages[a.stage].work))
        # A network evaluation costs about a third of a training step's share of one image.
        trained = [pace[kind] for kind in pace if self._costs[kind] == "training"]
        for kind in self.kinds if trained else ():
            if self._costs[kind] == "pass":
                pace.setdefault(kind, trained[0] / 3)
        running = {a.stage: a.done for a in self.active.values()}
        seconds = {}
        for stage in self._left.values():
            if stage.spec.cost != "moment" and stage.kind not in pace:
                return None
            # A moment beside the rest counts as nothing.
            seconds[stage.id] = pace.get(stage.kind, 0.0) * stage.work * (1 - running.get(stage.id, 0.0))
            if stage.spec.cost == "moment":
                seconds[stage.id] = 0.0
        return makespan(self._left.values(), seconds, max(self._places, 1), running)


class PlainLines:
    """A line on stderr now and then, for logs and notebooks."""

    def __init__(self, monitor: Monitor, every: float = 15.0) -> None:
        self.monitor, self.every, self._last = monitor, every, time.monotonic()
        m = monitor
        name, todo = m.prepared.study.name, len(m.prepared.todo)
        self._say(f"study {name}: {len(m.stages)} stages, {len(m.stages) - todo} of them done before")

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event in, and say so if it is time."""
        m = self.monitor
        m.take(event)
        if event["event"] == "log":
            self._say(event["text"])
        ended = event["event"] == "end" and (m.nothing_left or event["state"] != "done")
        if ended or time.monotonic() - self._last > self.every:
            self._last = time.monotonic()
            parts = [
                f"{kind} {m.finished[kind]}/{m.total[kind]}" + (f" ({m.failed[kind]} failed)" if m.failed[kind] else "")
                for kind in m.kinds
            ]
            now = "; ".join(
                a.label + (f" loss {a.loss:.4f}" if a.loss is not None else "") + (f": {a.note}" if a.note else "")
                for a in m.active.values()
            )
            eta = m.eta()
            left = f", about {clock(eta)} left" if eta else ""
            self._say(f"[{clock(m.elapsed)}] {', '.join(parts)}{left}" + (f" | {now}" if now else ""))

    @staticmethod
    def _say(text: str) -> None:
        print(inert(text), file=sys.stderr, flush=True)
