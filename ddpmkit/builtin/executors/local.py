"""Run stages on this machine, one process a worker, one thread each."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any

from ddpmkit.plugin.interfaces import Executor

if TYPE_CHECKING:
    from ddpmkit.study.plan import Stage
    from ddpmkit.study.runner import RunSettings

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
        events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        devices = settings.devices
        workers = [
            _Worker(n, devices[n % len(devices)], settings, events) for n in range(min(settings.jobs, len(stages)))
        ]
        stopped = False
        try:
            while True:
                if settings.should_stop() and not stopped:
                    stopped = True
                    for worker in workers:
                        worker.send({"stop": True})
                if not stopped:
                    for worker in workers:
                        if worker.stage is None and (stage := ready.next()) is not None:
                            worker.start(stage)
                            settings.on_event({"event": "start", "stage": stage.id, "worker": worker.number})
                if all(w.stage is None for w in workers):
                    break
                try:
                    worker, event = events.get(timeout=POLL)
                except queue.Empty:
                    continue
                if event is None:
                    stage = worker.stage
                    code = worker.process.wait()
                    workers[worker.number] = _Worker(worker.number, worker.device, settings, events)
                    if stage is not None:
                        settings.on_event(
                            {"event": "log", "text": f"warning: {stage.label}: its worker died with exit code {code}"}
                        )
                        settings.on_event(
                            {"event": "end", "stage": stage.id, "worker": worker.number, "state": "failed"}
                        )
                        ready.finished(stage, ok=False)
                elif event["event"] == "end":
                    if worker.stage is not None:
                        ready.finished(worker.stage, ok=event["state"] == "done")
                    worker.stage = None
                    settings.on_event({**event, "worker": worker.number})
                else:
                    settings.on_event({**event, "worker": worker.number})
        finally:
            for worker in workers:
                worker.close()


@dataclass
class _Worker:
    """A process and what it is doing."""

    number: int
    device: str
    settings: RunSettings
    events: queue.Queue[tuple[_Worker, dict[str, Any] | None]]
    stage: Stage | None = None
    process: subprocess.Popen[str] = field(init=False)
    listener: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        from ddpmkit.study.worker import THREADS

        environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ddpmkit.study.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            bufsize=1,
        )
        s = self.settings
        self.send(
            {
                "setup": {
                    "out": str(s.store.out),
                    "plugins": list(s.registry.options),
                    "installed": s.registry.installed,
                    "options": asdict(replace(s.options, device=self.device)),
                }
            }
        )
        assert self.process.stdout is not None
        self.listener = threading.Thread(target=self._listen, args=(self.process.stdout,), daemon=True)
        self.listener.start()

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
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
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, OSError):
            pass

    def close(self) -> None:
        """End the process."""
        self.send({"stop": True})
        try:
            self.process.wait(timeout=GRACE if self.stage is not None else 5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.listener.join()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
