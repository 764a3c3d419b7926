"""What is asked of an executor: it opens and closes; no stage is run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ddpmkit.plugin.execution import Job, Pool
from ddpmkit.plugin.interfaces import Executor
from ddpmkit.plugin.registry import Registry
from ddpmkit.testing.check import fail, named, unless_refused


def opens_and_closes(executor: Executor) -> None:
    """It gives a pool with at least one place, which can be polled, stopped and closed with nothing to do."""
    with tempfile.TemporaryDirectory() as out:
        events: list[Any] = []
        pool = _open(executor, out, events)
        pool.poll(0.0)
        pool.stop()
        pool.close(now=True)
    if events:
        fail(f"executor '{executor.name}' reports {events[0]} with nothing to do", "emit what stages do, and no more")


def _open(executor: Executor, out: str, events: list[Any]) -> Pool:
    job = Job(str(Path(out)), (), False, ("cpu",), 1, 500, registry=Registry(installed=False))
    pool = unless_refused(lambda: executor.open(job, events.append, lambda: False))
    if not isinstance(pool, Pool) or not isinstance(getattr(pool, "places", None), int) or pool.places < 1:
        fail(
            f"executor '{executor.name}': open gives {type(pool).__name__}, not a Pool with at least one place",
            "subclass ddpmkit.Pool and set places",
        )
    return pool


CHECKS = named(opens_and_closes)
