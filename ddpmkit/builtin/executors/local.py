"""Run stages on this machine, one process a worker, one thread each."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ddpmkit.plugin.interfaces import Executor

if TYPE_CHECKING:
    from ddpmkit.study.plan import Stage
    from ddpmkit.study.queue import ReadyQueue
    from ddpmkit.study.runner import RunSettings

    # What a worker said; None when its stdout closed.
    _Event = tuple["_Worker", dict[str, Any] | None]

POLL = 0.2  # seconds between two looks at whether to stop
GRACE = 30.0  # seconds a worker has to write its checkpoint


@dataclass(frozen=True)
class Local(Executor):
    """Run stages on this machine: one process a worker, one CPU thread each, one worker a GPU.

    Two one-thread workers beat one two-thread worker, and the bits do not depend on the number of cores. A worker that
    dies costs its stage, not the study; a new one takes its place.
    """

    name = "local"
    reference = "ddpmkit/study/worker.py"

    def run(self, stages: Sequence[Stage], settings: RunSettings) -> None:
        """Run the stages; each event goes to ``settings.on_event``."""
        from ddpmkit.study.queue import ReadyQueue

        ready = ReadyQueue(stages)
        events: queue.Queue[_Event] = queue.Queue()
        slots: list[_Worker | None] = [None] * min(settings.jobs, len(stages))
        retired: list[_Worker] = []
        repeated: set[str] = set()
        stopping = False
        try:
            while True:
                if settings.should_stop() and not stopping:
                    stopping = True
                    for worker in filter(None, slots):
                        worker.send({"stop": True})
                if not stopping:
                    self._fill(slots, ready, settings, events)
                if not any(w is not None and w.stage is not None for w in slots):
                    break
                try:
                    worker, event = events.get(timeout=POLL)
                except queue.Empty:
                    continue
                stage = worker.stage
                if event is not None and event["event"] != "end":
                    settings.on_event({**event, "worker": worker.number})
                    continue
                if event is None:
                    code = worker.close()
                    if slots[worker.number] is worker:
                        slots[worker.number] = None
                    if stage is None:
                        continue
                    event = {"event": "end", "stage": stage.id, "state": "failed"}
                    event["error"] = f"its worker died with exit code {code}"
                    settings.on_event({"event": "log", "text": f"warning: {stage.label}: {event['error']}"})
                elif event["state"] == "interrupted" and not stopping:
                    # Somebody ended this one worker; what it was doing goes to another, once.
                    slots[worker.number] = None
                    retired.append(worker)
                    if stage is not None and stage.id not in repeated:
                        repeated.add(stage.id)
                        worker.stage = None
                        ready.put_back(stage)
                        settings.on_event({"event": "requeued", "stage": stage.id, "worker": worker.number})
                        continue
                worker.stage = None
                if stage is not None:
                    ready.finished(stage, ok=event["state"] == "done")
                settings.on_event({**event, "worker": worker.number})
        finally:
            left = [*filter(None, slots), *retired]
            for worker in left:
                worker.send({"stop": True})
            for worker in left:
                worker.close()

    @staticmethod
    def _fill(
        slots: list[_Worker | None], ready: ReadyQueue, settings: RunSettings, events: queue.Queue[_Event]
    ) -> None:
        """Give every idle slot a stage, starting a worker where there is none."""
        for number, worker in enumerate(slots):
            if worker is not None and worker.stage is not None:
                continue
            stage = ready.next()
            if stage is None:
                return
            if worker is None:
                device = settings.devices[number % len(settings.devices)]
                worker = slots[number] = _Worker(number, device, settings, events)
            worker.start(stage)
            settings.on_event({"event": "start", "stage": stage.id, "worker": number})


@dataclass(eq=False)
class _Worker:
    """A process and what it is doing."""

    number: int
    device: str
    settings: RunSettings
    events: queue.Queue[_Event]
    stage: Stage | None = None
    process: subprocess.Popen[str] = field(init=False)
    listener: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        from ddpmkit.study.worker import THREADS

        environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        # The parent's own path, and not the working folder: a queue.py in it would be imported for the library's.
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ddpmkit.study.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            bufsize=1,
        )
        self.send({"setup": self.settings.setup(self.device)})
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                try:
                    event = json.loads(line)
                except ValueError:  # a library that writes to the file descriptor itself
                    event = {"event": "log", "text": line.rstrip()}
                self.events.put((self, event))
        self.events.put((self, None))

    def start(self, stage: Stage) -> None:
        """Give the worker a stage."""
        self.stage = stage
        self.send({"run": stage.json()})

    def send(self, message: dict[str, Any]) -> None:
        """Write one message; a worker that is gone is noticed by its closed stdout."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(OSError):
                self.process.stdin.write(json.dumps(message) + "\n")
                self.process.stdin.flush()

    def close(self) -> int:
        """End the process, if it has not ended, and return its exit code."""
        self.send({"stop": True})
        try:
            self.process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.listener.join()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # a last message that nobody read
                    stream.close()
        return self.process.returncode
