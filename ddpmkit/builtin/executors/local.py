"""Run stages on this machine, one process a worker, one thread each."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ddpmkit import Emit, Event, Executor, Job, Pool, ShouldStop, Task, param

if TYPE_CHECKING:
    from ddpmkit.builtin.executors._leash import Leash
    from ddpmkit.builtin.executors._process import Process

    # What a worker said; None when it has ended.
    _News = tuple[Process, Event | None]

SLOW = 60.0  # seconds after which a worker that has not started is worth a line


@dataclass(frozen=True)
class Local(Executor):
    """Run stages on this machine: one process a worker, one CPU thread each, one worker a GPU.

    Two one-thread workers beat one two-thread worker, and the bits do not depend on the number of cores. A worker that
    dies costs its stage, not the study; a new one takes its place. What a stage prints is in ``log.txt`` in its folder,
    at most a megabyte of it; of one that fails the last lines are shown. When the study is stopped, what runs gets
    ``grace`` seconds to write its checkpoint and is then killed, with all that it started; so does what is over its
    time.
    """

    name = "local"
    reference = "ddpmkit/builtin/executors/_worker.py"
    grace: float = param(30.0, "seconds that what runs is given, once stopped, before it is killed", ge=0)

    def open(self, job: Job, emit: Emit, should_stop: ShouldStop) -> Pool:
        """Return one place a worker."""
        from ddpmkit.builtin.executors._leash import Leash

        return _Workers(job, emit, self.grace, job.places, Leash())


@dataclass
class _Workers(Pool):
    """One run: a process a place, and what each works on."""

    job: Job
    emit: Emit
    grace: float
    places: int
    leash: Leash
    news: queue.Queue[_News] = field(default_factory=queue.Queue)
    slots: dict[int, Process] = field(default_factory=dict)
    retired: list[Process] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)
    slow: set[Process] = field(default_factory=set)
    deadline: float | None = None  # when what still runs is killed; None until the study is stopped

    def submit(self, place: int, task: Task) -> None:
        """Give the worker of a place a stage, and start one where there is none."""
        from ddpmkit.builtin.executors._process import Process

        if place not in self.slots:
            self.slots[place] = Process(place, self.job, self.leash, lambda w, e: self.news.put((w, e)))
        self.slots[place].start(task)

    def poll(self, seconds: float) -> None:
        """Take in one thing that a worker says, and look after those that say nothing."""
        if self.deadline is not None:
            self._kill_late_ones(time.monotonic() - self.deadline)
            if not self._busy():
                return
        self._kill_what_is_over_its_time()
        try:
            worker, event = self.news.get(timeout=seconds)
        except queue.Empty:
            self._look_for_slow_ones()
            return
        self._take(worker, event)

    def close(self, *, now: bool) -> None:
        """End every worker; ``now``: what is at work is killed, and is interrupted."""
        with self.leash:
            self._close(now=now)

    def _close(self, *, now: bool) -> None:
        from ddpmkit.builtin.executors._process import LINGER
        from ddpmkit.builtin.executors._worker import STOP

        everyone = [*self.slots.values(), *self.retired]
        for worker in everyone:
            if now and worker.task is not None:
                worker.kill()
            else:
                worker.send(STOP)
        begun = time.monotonic()
        for worker in everyone:
            # Where what takes the events in has raised, somebody is still at work and writes a checkpoint.
            patience = LINGER if worker.task is None or now else self.grace
            worker.close(max(begun + patience - time.monotonic(), 0.0))
        why = "it was killed by a second signal" if now else "the run ended before it did"
        for worker in everyone:
            self._end(worker, "interrupted", why)

    def _busy(self) -> list[Process]:
        return [w for w in self.slots.values() if w.task is not None]

    def stop(self) -> None:
        """Ask for checkpoints, and say who is waited for; one that has not even started has nothing to save."""
        from ddpmkit.builtin.executors._worker import STOP

        self.deadline = time.monotonic() + self.grace
        for worker in self._busy():
            if worker.ready:
                worker.send(STOP)
            else:
                worker.kill()
        labels = [w.task.label for w in self._busy() if w.ready and w.task is not None]
        if labels:
            self._say(
                f"stopping: waiting for {'; '.join(labels)}; what has not ended in {self.grace:g} s is killed; "
                "Ctrl-C again kills it now"
            )

    def _kill_late_ones(self, late: float) -> None:
        from ddpmkit.builtin.executors._process import LINGER

        for worker in self._busy() if late > 0 else ():
            worker.kill()
            if late > LINGER:
                self._end(worker, "interrupted", "it could not be killed; a driver may hold it")

    def _kill_what_is_over_its_time(self) -> None:
        """Kill what has not ended by itself, ``grace`` seconds after its time was up."""
        limit = self.job.timeout
        for worker in self._busy() if limit is not None and self.deadline is None else ():
            if worker.begun and not worker.late and time.monotonic() - worker.begun_at > (limit or 0.0) + self.grace:
                worker.late = True
                worker.kill()

    def _look_for_slow_ones(self) -> None:
        for worker in self._busy():
            if not worker.ready and worker not in self.slow and time.monotonic() - worker.since > SLOW:
                self.slow.add(worker)
                self._say(f"warning: worker {worker.number} has not started after {SLOW:g} s; is it a plugin's import?")

    def _take(self, worker: Process, event: Event | None) -> None:
        task = worker.task
        if event is None:
            worker.close(0.0)
            if self.slots.get(worker.number) is worker:
                del self.slots[worker.number]
            if task is None:
                return
            if self.deadline is not None and (worker.killed or not worker.begun):
                late = f"it had not ended {self.grace:g} s after the stop" if worker.ready else "it had not begun"
                self._end(worker, "interrupted", f"it was killed: {late}")
            elif worker.late:
                error = f"it took longer than {self.job.timeout:g} s, did not stop, and was killed"
                self._say(f"warning: {task.label}: timed out: {error}")
                self._end(worker, "timed out", error)
            elif worker.ready and not worker.begun and self._again(worker, task):
                return  # it was on its way out when it was given the stage
            else:
                error = worker.how_it_ended()
                self._say(f"warning: {task.label}: {error}")
                self._end(worker, "failed", error)
        elif event["event"] != "end":
            self.emit({**event, "worker": worker.number})
        else:
            if event["state"] == "interrupted" and self.deadline is None:
                # Somebody ended this one worker; what it was doing goes to another, once.
                del self.slots[worker.number]
                self.retired.append(worker)
                if task is not None and self._again(worker, task):
                    return
            elif worker.killed and self.slots.get(worker.number) is worker:
                # It had said so before it was killed; what comes next is for one that lives.
                del self.slots[worker.number]
                self.retired.append(worker)
            self._end(worker, event["state"])

    def _again(self, worker: Process, task: Task) -> bool:
        if task.id in self.repeated:
            return False
        self.repeated.add(task.id)
        worker.task = None
        self.emit({"event": "requeued", "stage": task.id, "worker": worker.number})
        return True

    def _end(self, worker: Process, state: str, error: str | None = None) -> None:
        task, worker.task = worker.task, None
        if task is None:
            return
        from ddpmkit.builtin.executors._process import BAD

        if state in BAD and worker.last_lines:
            of = f", of {worker.log_path(task)}" if worker.begun else ""  # else no log of it is kept
            self._say(f"the last lines it printed{of}:")
            for line in worker.last_lines:
                self._say(f"  | {line}")
        event = {"event": "end", "stage": task.id, "state": state, "worker": worker.number}
        self.emit(event if error is None else {**event, "error": error})

    def _say(self, text: str) -> None:
        self.emit({"event": "log", "text": text})
