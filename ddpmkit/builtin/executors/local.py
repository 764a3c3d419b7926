"""Run stages on this machine, one process a worker, one thread each."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ddpmkit.plugin.interfaces import Executor
from ddpmkit.plugin.spec import param

if TYPE_CHECKING:
    from ddpmkit.study.leash import Leash
    from ddpmkit.study.process import Process
    from ddpmkit.study.queue import ReadyQueue
    from ddpmkit.study.runner import RunSettings
    from ddpmkit.study.stage import Stage

    # What a worker said; None when it has ended.
    _Event = tuple[Process, dict[str, Any] | None]

POLL = 0.2  # seconds between two looks at whether to stop
SLOW = 60.0  # seconds after which a worker that has not started is worth a line


@dataclass(frozen=True)
class Local(Executor):
    """Run stages on this machine: one process a worker, one CPU thread each, one worker a GPU.

    Two one-thread workers beat one two-thread worker, and the bits do not depend on the number of cores. A worker that
    dies costs its stage, not the study; a new one takes its place. What a stage prints is in ``log.txt`` in its folder,
    at most a megabyte of it; of one that fails the last lines are shown. When the study is stopped, what runs gets
    ``grace`` seconds to write its checkpoint and is then killed, with all that it started.
    """

    name = "local"
    reference = "ddpmkit/study/worker.py"
    grace: float = param(30.0, "seconds that what runs is given, once stopped, before it is killed", ge=0)

    def run(self, stages: Sequence[Stage[Any]], settings: RunSettings) -> None:
        """Run the stages; each event goes to ``settings.on_event``.

        Raises:
            KeyboardInterrupt: when a second signal asks for the end at once; by then every worker has been killed.
        """
        from ddpmkit.study.leash import Leash
        from ddpmkit.study.queue import ReadyQueue

        with Leash() as leash:
            shift = _Shift(ReadyQueue(stages), settings, leash, self.grace, min(settings.jobs, len(stages)))
            now = False
            try:
                shift.work()
            except KeyboardInterrupt:
                now = True
                raise
            finally:
                shift.end(now=now)


@dataclass
class _Shift:
    """One run: who works on what, and what is left to hand out."""

    ready: ReadyQueue
    settings: RunSettings
    leash: Leash
    grace: float
    size: int
    events: queue.Queue[_Event] = field(default_factory=queue.Queue)
    slots: dict[int, Process] = field(default_factory=dict)
    retired: list[Process] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)
    slow: set[Process] = field(default_factory=set)
    deadline: float | None = None  # when what still runs is killed; None until the study is stopped

    def work(self) -> None:
        """Hand out stages and take in what becomes of them, until nothing runs and nothing can be begun."""
        while True:
            if self.deadline is None:
                if self.settings.should_stop():
                    self._stop()
                else:
                    self._fill()
            else:
                self._kill_late_ones(time.monotonic() - self.deadline)
            if not self._busy():
                return
            try:
                worker, event = self.events.get(timeout=POLL)
            except queue.Empty:
                self._look_for_slow_ones()
                continue
            self._take(worker, event)

    def end(self, *, now: bool) -> None:
        """End every worker; ``now``: what is at work is killed, and is interrupted."""
        from ddpmkit.study.process import LINGER
        from ddpmkit.study.worker import STOP

        everyone = [*self.slots.values(), *self.retired]
        for worker in everyone:
            if now and worker.stage is not None:
                worker.kill()
            else:
                worker.send(STOP)
        begun = time.monotonic()
        for worker in everyone:
            # Where what takes the events in has raised, somebody is still at work and writes a checkpoint.
            patience = LINGER if worker.stage is None or now else self.grace
            worker.close(max(begun + patience - time.monotonic(), 0.0))
        for worker in everyone:
            if now:
                self._end(worker, "interrupted", "it was killed by a second signal")

    def _busy(self) -> list[Process]:
        return [w for w in self.slots.values() if w.stage is not None]

    def _fill(self) -> None:
        """Give every idle worker a stage, and start one where a place is empty."""
        from ddpmkit.study.process import Process

        for number in range(self.size):
            worker = self.slots.get(number)
            if worker is not None and worker.stage is not None:
                continue
            stage = self.ready.next()
            if stage is None:
                return
            if worker is None:
                device = self.settings.devices[number % len(self.settings.devices)]
                setup = self.settings.setup(device)
                worker = Process(number, self.settings.store, setup, self.leash, lambda w, e: self.events.put((w, e)))
                self.slots[number] = worker
            worker.start(stage)
            self.settings.on_event({"event": "start", "stage": stage.id, "worker": number})

    def _stop(self) -> None:
        """Ask for checkpoints, and say who is waited for; one that has not even started has nothing to save."""
        from ddpmkit.study.worker import STOP

        self.deadline = time.monotonic() + self.grace
        for worker in self._busy():
            if worker.ready:
                worker.send(STOP)
            else:
                worker.kill()
        labels = [w.stage.label for w in self._busy() if w.ready and w.stage is not None]
        if labels:
            self._say(
                f"stopping: waiting for {'; '.join(labels)}; what has not ended in {self.grace:g} s is killed; "
                "Ctrl-C again kills it now"
            )

    def _kill_late_ones(self, late: float) -> None:
        from ddpmkit.study.process import LINGER

        for worker in self._busy() if late > 0 else ():
            worker.kill()
            if late > LINGER:
                self._end(worker, "interrupted", "it could not be killed; a driver may hold it")

    def _look_for_slow_ones(self) -> None:
        for worker in self._busy():
            if not worker.ready and worker not in self.slow and time.monotonic() - worker.since > SLOW:
                self.slow.add(worker)
                self._say(f"warning: worker {worker.number} has not started after {SLOW:g} s; is it a plugin's import?")

    def _take(self, worker: Process, event: dict[str, Any] | None) -> None:
        stage = worker.stage
        if event is None:
            worker.close(0.0)
            if self.slots.get(worker.number) is worker:
                del self.slots[worker.number]
            if stage is None:
                return
            if self.deadline is not None and worker.killed:
                late = f"it had not ended {self.grace:g} s after the stop" if worker.ready else "it had not begun"
                self._end(worker, "interrupted", f"it was killed: {late}")
            elif worker.ready and not worker.begun and self._again(worker, stage):
                return  # it was on its way out when it was given the stage
            else:
                error = worker.how_it_ended()
                self._say(f"warning: {stage.label}: {error}")
                self._end(worker, "failed", error)
        elif event["event"] != "end":
            self.settings.on_event({**event, "worker": worker.number})
        else:
            if event["state"] == "interrupted" and self.deadline is None:
                # Somebody ended this one worker; what it was doing goes to another, once.
                del self.slots[worker.number]
                self.retired.append(worker)
                if stage is not None and self._again(worker, stage):
                    return
            self._end(worker, event["state"])

    def _again(self, worker: Process, stage: Stage[Any]) -> bool:
        if stage.id in self.repeated:
            return False
        self.repeated.add(stage.id)
        worker.stage = None
        self.ready.put_back(stage)
        self.settings.on_event({"event": "requeued", "stage": stage.id, "worker": worker.number})
        return True

    def _end(self, worker: Process, state: str, error: str | None = None) -> None:
        stage, worker.stage = worker.stage, None
        if stage is None:
            return
        if state in ("failed", "diverged") and worker.last_lines:
            self._say(f"the last lines it printed, of {self.settings.store.folder(stage.kind, stage.id) / 'log.txt'}:")
            for line in worker.last_lines:
                self._say(f"  | {line}")
        self.ready.finished(stage, ok=state == "done")
        event = {"event": "end", "stage": stage.id, "state": state, "worker": worker.number}
        self.settings.on_event(event if error is None else {**event, "error": error})

    def _say(self, text: str) -> None:
        self.settings.on_event({"event": "log", "text": text})
