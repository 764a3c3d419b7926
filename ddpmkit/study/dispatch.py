"""The loop of a run: stages are handed out as their needs are met, and what becomes of them is passed on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.plugin.execution import Emit, Event, Job, ShouldStop, Task
from ddpmkit.plugin.interfaces import Executor
from ddpmkit.study.queue import ReadyQueue
from ddpmkit.study.stage import Stage

POLL = 0.2  # seconds between two looks at whether to stop


def dispatch(
    executor: Executor,
    job: Job,
    stages: Sequence[Stage[Any]],
    emit: Emit,
    should_stop: ShouldStop,
    *,
    retries: int = 0,
) -> None:
    """Run every stage after the ones it needs; those that read a stage without output are left.

    A training behind one that failed makes all steps itself; behind one that diverged it is left too.

    A stage that failed is handed out again, ``retries`` times at most; one that diverged would do so again.

    Raises:
        DdpmkitError: for an event of the executor that is none.
        KeyboardInterrupt: when a second signal asks for the end at once; the pool is closed by then.
    """
    ready = ReadyQueue(stages)
    places: dict[int, str] = {}  # place -> the stage that runs there
    by_id = {s.id: s for s in stages}
    tries = dict.fromkeys(by_id, retries)

    home, elsewhere = threading.get_ident(), threading.Event()
    said_elsewhere = (
        f"executor '{executor.name}' emits events from another thread",
        "put them into a queue there, and emit them within poll: docs/executors.md",
    )

    def heard(event: Event) -> None:
        if threading.get_ident() != home:  # raised there, nobody would see it
            elsewhere.set()
            return
        event = contract.event(executor, event, by_id)
        if event["event"] in ("end", "requeued"):
            stage = by_id[event["stage"]]
            place = next((p for p, running in places.items() if running == stage.id), None)
            if place is None:
                raise DdpmkitError(
                    f"executor '{executor.name}' reports the {event['event']} of '{stage.label}', which does not run",
                    "one event for each stage that was submitted: docs/executors.md",
                )
            del places[place]
            event = {"worker": place, **event}
            if event["event"] == "end" and event["state"] == "failed" and tries[stage.id] and not should_stop():
                tries[stage.id] -= 1
                said = f"{stage.label} failed, and is tried again (attempt {retries - tries[stage.id] + 1})"
                emit({"event": "log", "text": said})
                event = {**event, "event": "requeued"}  # with the state and the error of the attempt
            if event["event"] == "end":
                ready.finished(stage, ok=event["state"] == "done", diverged=event["state"] == "diverged")
            else:
                ready.put_back(stage)
        emit(event)

    pool, stopping, now = executor.open(job, heard, should_stop), False, True
    try:
        while True:
            if should_stop() and not stopping:
                stopping = True
                pool.stop()
            for place in range(0 if stopping else pool.places):
                if place not in places and (stage := ready.next()) is not None:
                    places[place] = stage.id
                    emit({"event": "start", "stage": stage.id, "worker": place})
                    pool.submit(place, Task(stage.id, stage.kind, stage.label, stage.json()))
            if not places:
                break
            pool.poll(POLL)
            if elsewhere.is_set():
                raise DdpmkitError(*said_elsewhere)
        now = False
    except KeyboardInterrupt:
        raise
    except BaseException:  # a plugin's pool may raise anything; what runs may still write its checkpoint
        now = False
        raise
    finally:
        begun = elsewhere.is_set()
        pool.close(now=now)
        if elsewhere.is_set() and not begun:
            emit({"event": "log", "text": f"warning: {said_elsewhere[0]}; {said_elsewhere[1]}"})
