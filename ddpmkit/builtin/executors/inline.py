"""Run stages in this process, one after another."""

from __future__ import annotations

from dataclasses import dataclass, field

from ddpmkit import Emit, Executor, Job, Pool, ShouldStop, Task


@dataclass(frozen=True)
class Inline(Executor):
    """Run every stage in this very process, in order; for notebooks, debuggers and tests.

    What a stage raises costs the stage, an exit included; what ends the process (a crash, ``os._exit``) ends the study,
    and what a stage prints is not kept. A stage that hangs is interrupted by a second Ctrl-C, unless it hangs inside a
    library that never looks: run such a thing under ``local``.
    """

    name = "inline"
    reference = "ddpmkit/builtin/executors/inline.py"

    def open(self, job: Job, emit: Emit, should_stop: ShouldStop) -> Pool:
        """Return the one place that there is."""
        return _Here(job, emit, should_stop)


@dataclass
class _Here(Pool):
    job: Job
    emit: Emit
    should_stop: ShouldStop
    waiting: list[Task] = field(default_factory=list)
    places: int = 1

    def submit(self, place: int, task: Task) -> None:
        self.waiting.append(task)

    def poll(self, seconds: float) -> None:
        from ddpmkit import run_one

        while self.waiting:
            task = self.waiting.pop()
            state = run_one(self.job, task, self.emit, self.should_stop)
            self.emit({"event": "end", "stage": task.id, "state": state})
