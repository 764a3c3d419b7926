"""An executor whose threads emit by themselves is told so, in the thread in which a run is led."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import DdpmkitError, Emit, Executor, Job, Pool, ShouldStop, Task, hookimpl
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.dispatch import dispatch
from ddpmkit.study.stages import read_stage
from ddpmkit.testing import tiny_study
from ddpmkit.testing.doomed import doomed


@dataclass
class Threads(Pool):
    """Each stage ends in a thread of its own, which says so at once."""

    emit: Emit
    places: int = 1

    def submit(self, place: int, task: Task) -> None:
        end = {"event": "end", "stage": task.id, "state": "failed"}
        thread = threading.Thread(target=self.emit, args=(end,))
        thread.start()
        thread.join()

    def poll(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Hasty(Executor):
    """Emits from the threads themselves."""

    name = "hasty"
    reference = "this test"

    def open(self, job: Job, emit: Emit, should_stop: ShouldStop) -> Any:
        return Threads(emit)


@hookimpl
def ddpmkit_register_executors() -> list[type]:
    return [Hasty]


def test_events_from_another_thread_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DdpmkitError, match="executor 'hasty' emits events from another thread") as caught:
        tiny_study(Hasty(), tmp_path)
    assert "emit them within poll" in str(caught.value.hint)


@dataclass
class Late(Threads):
    """Says rightly how a stage ended, and something else from a thread once it is closed."""

    def submit(self, place: int, task: Task) -> None:
        self.emit({"event": "end", "stage": task.id, "state": "failed"})

    def close(self, *, now: bool) -> None:
        super().submit(0, doomed(1)[0])


@dataclass(frozen=True)
class Tardy(Hasty):
    """Opens such a pool."""

    def open(self, job: Job, emit: Emit, should_stop: ShouldStop) -> Any:
        return Late(emit)


def test_an_event_that_comes_from_a_thread_at_the_close_is_not_lost_without_a_word(tmp_path: Path) -> None:
    job, events = Job(str(tmp_path), (), False, ("cpu",), 1, 500, registry=Registry(installed=False)), list[Any]()
    dispatch(Tardy(), job, [read_stage(task.record) for task in doomed(1)], events.append, lambda: False)
    assert [event["event"] for event in events] == ["start", "end", "log"]
    assert "emits events from another thread" in events[-1]["text"]
