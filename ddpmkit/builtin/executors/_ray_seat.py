"""One place of a Ray cluster, on its node: a worker of the local executor, whose events go to the driver as text.

Ray's own process only looks after the worker, so that a stage that crashes, hangs, prints without end or forks is dealt
with as it is on one machine. When that process ends, however it does, the worker ends with it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddpmkit import Event, Job, Pool, Task
from ddpmkit.builtin.executors.local import Local

EVERY = 1.0  # seconds between two reports of one stage
PATIENCE = 30.0  # seconds in which a network's file system may not show what another node has written


class Seat:
    """What Ray makes an actor of; it is told JSON and answers JSON, so that Ray carries text alone."""

    def __init__(self, told: str) -> None:
        """Take in ``{"job": .., "mark": .., "files": {path: text}, "grace": ..}``; nothing can go wrong yet."""
        self._told: dict[str, Any] = json.loads(told)
        self._pool: Pool | None = None
        self._events: list[Event] = []
        self._brought: tempfile.TemporaryDirectory[str] | None = None

    def begin(self, task: str) -> str:
        """Start a stage, and answer as :meth:`news` does; or with ``{"refused": why}``."""
        if self._pool is None:
            if not _appears(Path(self._told["mark"])):
                return json.dumps({"refused": f"does not see the results folder '{self._told['job']['out']}'"})
            job = replace(Job.from_json(self._told["job"]), plugins=self._plugins())
            self._pool = Local(grace=self._told["grace"]).open(job, self._events.append, lambda: False)
        self._pool.submit(0, Task(**json.loads(task)))
        return self.news()

    def news(self) -> str:
        """Answer ``{"events": [..]}``: once the stage has ended, or a second is over."""
        until = time.monotonic() + EVERY
        while self._pool is not None and not _ended(self._events) and (left := until - time.monotonic()) > 0:
            self._pool.poll(left)
        newest = max((i for i, e in enumerate(self._events) if e["event"] == "progress"), default=None)
        told = [e for i, e in enumerate(self._events) if e["event"] != "progress" or i == newest]
        self._events.clear()  # the pool holds the same list
        return json.dumps({"events": told})

    def stop(self) -> None:
        """Ask for a checkpoint; the driver says who is waited for."""
        if self._pool is not None:
            before = len(self._events)
            self._pool.stop()
            self._events[before:] = [e for e in self._events[before:] if e["event"] != "log"]

    def leave(self) -> None:
        """Take away what was brought here; Ray ends this process next, and lets it do nothing more."""
        if self._brought is not None:
            self._brought.cleanup()
            self._brought = None

    def _plugins(self) -> tuple[str, ...]:
        """What ``-p`` takes here: a file where it is, if it is the same one here, or else a copy of it."""
        files: dict[str, str] = self._told["files"]
        return tuple(self._place(p, files[p]) if p in files else p for p in self._told["job"]["plugins"])

    def _place(self, path: str, text: str) -> str:
        content = text.encode()
        try:
            same = hashlib.sha256(Path(path).read_bytes()).digest() == hashlib.sha256(content).digest()
        except OSError:
            same = False
        if same:
            return path
        if self._brought is None:
            self._brought = tempfile.TemporaryDirectory(prefix="ddpmkit-")
        # A folder for each: two files may have one name.
        copy = Path(tempfile.mkdtemp(dir=self._brought.name), Path(path).name)
        copy.write_bytes(content)
        return str(copy)


def _ended(events: list[Event]) -> bool:
    return any(e["event"] in ("end", "requeued") for e in events)


def _appears(mark: Path) -> bool:
    """Whether a file that the driver has written is seen here."""
    until = time.monotonic() + PATIENCE
    while not mark.exists():
        if time.monotonic() > until:
            return False
        time.sleep(EVERY)
    return True
