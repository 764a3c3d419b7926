"""What is asked of an executor: it opens and closes, and says how a stage ended that was stopped as it began."""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ddpmkit.plugin import contract
from ddpmkit.plugin.execution import Job, Pool, Task
from ddpmkit.plugin.interfaces import Executor
from ddpmkit.plugin.registry import Registry
from ddpmkit.testing.check import NotAsked, fail, named, unless_refused
from ddpmkit.testing.doomed import doomed

PATIENCE = 20.0  # seconds for stages that end at once


def opens_and_closes(executor: Executor) -> None:
    """It gives a pool with at least one place, which can be polled, stopped and closed with nothing to do."""
    with tempfile.TemporaryDirectory() as out:
        events: list[Any] = []
        pool = _open(executor, out, events)
        pool.poll(0.0)
        pool.stop()
        pool.close(now=True)
        other = _open(executor, out, [])
        other.close(now=True)
    if other is pool:
        fail(f"executor '{executor.name}' gives the same pool for two runs", "make a new one in open")
    if events:
        fail(f"executor '{executor.name}' reports {events[0]} with nothing to do", "emit what stages do, and no more")


def reports_each_end_once(executor: Executor) -> None:
    """A stage that is stopped as it begins has one end, or goes back; it was not done, and ends in this thread.

    What is submitted can't succeed, and is stopped before the first poll. An executor of other machines is not asked,
    since it may put into a queue what is submitted.
    """
    if executor.elsewhere:
        raise NotAsked("it runs stages on other machines")
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stderr(io.StringIO()):
        events: list[tuple[int, Any]] = []
        pool = _open(executor, out, events, told=lambda event: events.append((threading.get_ident(), event)))
        tasks = doomed(min(pool.places, 2))
        for place, task in enumerate(tasks):
            pool.submit(place, task)
        pool.stop()
        until = time.monotonic() + PATIENCE
        while len(_over(events)) < len(tasks) and time.monotonic() < until:
            pool.poll(0.05)
        pool.close(now=True)
        _look(executor, events, {task.id: task for task in tasks})


def _look(executor: Executor, events: list[tuple[int, Any]], tasks: dict[str, Task]) -> None:
    told = f"executor '{executor.name}'"
    for thread, event in events:
        contract.event(executor, event, tasks)
        if thread != threading.get_ident():
            fail(
                f"{told} reports {event} from another thread",
                "put it in a queue there, and emit it in poll; events come from submit, poll, stop and close alone",
            )
    for stage in tasks:
        about = [event for _, event in events if event.get("stage") == stage]
        ends = [event for event in about if event["event"] in ("end", "requeued")]
        if not ends:
            fail(
                f"{told} never says how a stage ended that was submitted",
                'emit {"event": "end", "stage": task.id, "state": ..} once for each, in close at the latest',
            )
        if len(ends) > 1:
            fail(f"{told} reports {len(ends)} ends of one stage", "emit one")
        if ends[0].get("state") == "done":
            fail(
                f"{told} reports a stage as done that can't succeed, and left nothing",
                "report the state that run_one returns, or that ddpmkit.study.one prints",
            )
        if sum(event["event"] == "attempt" for event in about) > 1:
            fail(f"{told} runs a stage twice", "call run_one once a task")


def _over(events: list[tuple[int, Any]]) -> set[str]:
    return {e["stage"] for _, e in events if isinstance(e, dict) and e.get("event") in ("end", "requeued")}


def _open(executor: Executor, out: str, events: list[Any], told: Any = None) -> Pool:
    job = Job(str(Path(out)), (), False, ("cpu",), 1, 500, registry=Registry(installed=False))
    pool = unless_refused(lambda: executor.open(job, told or events.append, lambda: False))
    if not isinstance(pool, Pool) or not isinstance(getattr(pool, "places", None), int) or pool.places < 1:
        fail(
            f"executor '{executor.name}': open gives {type(pool).__name__}, not a Pool with at least one place",
            "subclass ddpmkit.Pool and set places",
        )
    return pool


CHECKS = named(opens_and_closes, reports_each_end_once)
