"""A worker that is killed for its time has the stage that it was killed for on its account, and no other one."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from ddpmkit import Task
from ddpmkit.builtin.executors.local import _Workers


class Dying:
    """A process that has said that its stage is done at the moment at which it is killed."""

    made: ClassVar[list[Dying]] = []

    def __init__(self, number: int, *_: Any) -> None:
        self.number, self.last_lines = number, list[str]()
        self.task: Task | None = None
        self.ready = self.begun = True
        self.killed = self.late = False
        self.begun_at = self.since = time.monotonic()
        Dying.made.append(self)

    def start(self, task: Task) -> None:
        self.task = task

    def kill(self) -> None:
        self.killed = True

    def close(self, _: float) -> int:
        return -9


def task(name: str) -> Task:
    return cast(Task, SimpleNamespace(kind="train", id=name, label=name))


def test_the_next_stage_of_a_place_goes_to_a_worker_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpmkit.builtin.executors._process.Process", Dying)
    Dying.made.clear()
    said: list[dict[str, Any]] = []
    job = cast(Any, SimpleNamespace(timeout=1.0))
    workers = _Workers(job, said.append, 1.0, 1, cast(Any, None))
    workers.submit(0, task("a"))
    first = cast(Any, Dying.made[0])
    first.begun_at -= 10.0
    workers.news.put((first, {"event": "end", "stage": "a", "state": "done"}))
    workers.poll(0.0)  # kills it, and takes in what it had said before
    assert first.killed
    workers.submit(0, task("b"))
    workers.news.put((first, None))
    workers.poll(0.0)
    second = cast(Any, Dying.made[1])
    assert second.task.id == "b"
    workers.news.put((second, {"event": "end", "stage": "b", "state": "done"}))
    workers.poll(0.0)
    assert [(e["stage"], e["state"]) for e in said if e["event"] == "end"] == [("a", "done"), ("b", "done")]
