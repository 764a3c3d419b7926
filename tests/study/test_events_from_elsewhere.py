"""An executor whose threads emit by themselves is told so, in the thread in which a run is led."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import DdpmkitError, Emit, Executor, Job, Pool, ShouldStop, Task, hookimpl
from ddpmkit.testing import tiny_study


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
