"""Places that are jobs: submitted together, looked after through files and Slurm's own answers, ended one by one."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ddpmkit import DdpmkitError, Emit, Job, Pool, Task, event_problem

from ddpmkit_slurm.output import keep_log, last_lines
from ddpmkit_slurm.signals import held_back
from ddpmkit_slurm.states import GONE, UNDERWAY, Seen, SilentError, ask, ask_controller, cancel, verdict
from ddpmkit_slurm.submission import RefusedError, Submissions
from ddpmkit_slurm.submitted import Submitted

if TYPE_CHECKING:
    from ddpmkit_slurm.executor import Slurm

LOOK = 1.0  # seconds between two looks at the files of jobs
LINGER = 45.0  # seconds for a job that has ended to be seen to say how, or to be in the queue again
UNKNOWN = 120.0  # seconds after which a job that the accounting has no word of is asked of the controller
QUIET = 900.0  # the same where it has a word, but neither the accounting nor the job itself another one since
PLACES, MOST_PLACES = 50, 1000  # where nobody says how many; an array of Slurm has 1000 tasks at most (MaxArraySize)
REFUSALS = 5  # refusals in a row, once jobs have been taken, after which the run ends
BAD = ("failed", "diverged", "timed out")


@dataclass
class Jobs(Pool):
    """One run: what waits to be submitted, and what is in the queue or at work."""

    executor: Slurm
    job: Job
    emit: Emit
    places: int = 0
    waiting: list[Task] = field(default_factory=list)
    jobs: dict[str, Submitted] = field(default_factory=dict)  # by stage
    again: Counter[str] = field(default_factory=Counter)
    submissions: Submissions | None = None
    stopped_at: float | None = None
    cancelled: bool = False

    def __post_init__(self) -> None:
        # The cores of the login node, of which job.places is made, say nothing of the cluster.
        self.places = min(self.executor.places or self.job.asked_jobs or PLACES, MOST_PLACES)
        self._not_before = self._look_at = self._ask_at = 0.0
        self._refusals, self._taken, self._silent, self._news = 0, False, False, False

    def submit(self, place: int, task: Task) -> None:
        """Take a stage in: those of one round are submitted together."""
        self.waiting.append(task)

    def poll(self, seconds: float) -> None:
        """Submit what waits, look after what was submitted, and wait where there is nothing new."""
        self._news = False
        self._begin()
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK * max(1.0, len(self.jobs) / 50)  # a file server has others to serve
            self._look_at_files()
        if now >= self._ask_at:
            self._ask_at = now + (self.executor.every if self.stopped_at is None else min(self.executor.every, 2.0))
            self._ask_slurm()
        if self.stopped_at is not None:
            self._end_late_ones(now - self.stopped_at - self.executor.grace)
        if not self._news:
            time.sleep(seconds)

    def stop(self) -> None:
        """Ask what runs for its checkpoint, and take out of the queue what does not run yet."""
        self.stopped_at = time.monotonic()
        for task in self.waiting:
            self._emit({"event": "end", "stage": task.id, "state": "interrupted"})
        self.waiting = []
        self._ask_to_stop()
        if self.jobs:
            labels = "; ".join(one.task.label for one in self.jobs.values())
            self._say(
                f"stopping: waiting for {labels}; what has not ended in {self.executor.grace:g} s is cancelled; "
                "Ctrl-C again cancels it now"
            )
        self._ask_at = 0.0

    def close(self, *, now: bool) -> None:
        """End what is left, and remove the files; ``now``: what is at work is cancelled."""
        try:
            if self.jobs and not now:  # something has raised, and jobs may still write their checkpoints
                self._ask_to_stop()
                until = time.monotonic() + self.executor.grace
                while self._unfinished() and time.monotonic() < until:
                    time.sleep(LOOK)
            cancel([one.job for one in self.jobs.values()])
            why = "it was cancelled by a second signal" if now else "the run ended before it did"
            for one in list(self.jobs.values()):
                self._end(one, "interrupted", why)
            for task in self.waiting:
                self._emit({"event": "end", "stage": task.id, "state": "interrupted"})
            self.waiting = []
        finally:
            if self.submissions is not None and not self.submissions.remove():
                self._say(f"warning: '{self.submissions.folder}' could not be removed; nothing needs it any more")

    def _begin(self) -> None:
        if not self.waiting or time.monotonic() < self._not_before:
            return
        if self.submissions is None:
            self.submissions = Submissions(self.executor, self.job)
            if left := self.submissions.sweep():
                self._say(
                    f"jobs of an earlier run are in Slurm still: {' '.join(left)}; what one is at is waited for, and "
                    "what is done is not done again; scancel them if nobody wants them"
                )
        try:
            with held_back():  # a job that Slurm has taken is in our list, whoever presses Ctrl-C, and can be cancelled
                taken = self.submissions.submit(self.waiting)
                begun = [Submitted(task, *one) for task, one in zip(self.waiting, taken, strict=True)]
                self.jobs |= {one.task.id: one for one in begun}
                self.waiting = []
        except RefusedError as err:
            self._refused(str(err))
            return
        self._refusals, self._taken = 0, True
        for one in begun:
            self._note(one, f"job {one.job}: submitted")
        self._ask_at = 0.0

    def _refused(self, words: str) -> None:
        """Wait and try again where the queue has taken jobs of ours before: it may be full for a while.

        Raises:
            DdpmkitError: where it has not, or refuses again and again.
        """
        self._refusals += 1
        if not self._taken or self._refusals > REFUSALS:
            hint = (
                "ddpmkit show slurm lists what sbatch can be told: slurm:partition=..:account=..:places=..:options=.."
            )
            raise DdpmkitError(f"sbatch refuses: {words}", hint)
        delay = self.executor.every * 2**self._refusals
        self._not_before = time.monotonic() + delay
        self._say(f"warning: sbatch refuses: {words}; tried again in {delay:g} s")

    def _look_at_files(self) -> None:
        if self.submissions is not None:
            self.submissions.touch()
        for one in list(self.jobs.values()):
            ended = one.said(".end")
            if (news := one.said(".news")) is not None and news != one.news:
                one.news, one.heard = news, time.monotonic()
                self._take_news(one, news)
            if ended is not None:
                state, _, error = ended.partition("\n")
                self._take_end(one, state, error)

    def _take_news(self, one: Submitted, news: str) -> None:
        try:
            record = json.loads(news)
            begun, event = bool(record["begun"]), {**record["event"], "stage": one.task.id}
        except (ValueError, KeyError, TypeError):
            return
        if begun and not one.begun:
            one.begun = True
            self._emit({"event": "attempt", "stage": one.task.id})
        if event.get("event") == "progress" and not event_problem(event, (one.task.id,)):
            self._emit(event)

    def _take_end(self, one: Submitted, state: str, error: str) -> None:
        if state == "interrupted" and self.stopped_at is None:
            # Nobody here has asked it to stop: the node has, with the signal of a preemption.
            self._again(one, f"job {one.job} was stopped on its node" + (f": {error}" if error else ""))
        else:
            self._end(one, state, error)

    def _ask_slurm(self) -> None:
        try:
            found = ask(one.job for one in self.jobs.values())
            self._silent = False
        except SilentError as err:
            if not self._silent:
                self._silent = True
                self._say(f"warning: Slurm does not answer ({err}); jobs go on, and it is asked again")
            return
        now = time.monotonic()
        for one in list(self.jobs.values()):
            new, seen = one.take(found.get(one.job), now), one.seen
            if new and seen.state in UNDERWAY and not one.news:
                self._note(one, f"job {one.job}: {seen.state.lower()}")
            if seen.state == "PENDING" and self.stopped_at is not None:
                cancel([one.job])  # it was being requeued when the others were stopped
            if seen.state in UNDERWAY and one.silent_for(now) > QUIET:
                self._ask_for(one)
            if seen.state in UNDERWAY or one.said(".end") is not None:
                continue
            if seen.state in ("SUBMITTED", "UNKNOWN"):
                if now - one.since > UNKNOWN:
                    self._ask_for(one)
            elif now - one.since > (LINGER if self.stopped_at is None else min(LINGER, LOOK)):
                if self._committed(one):  # its word was lost, in a folder that is no more, say
                    self._end(one, "done", "")
                    continue
                state, why = verdict(one.job, seen, self.executor.memory, self.executor.minutes)
                if self.stopped_at is not None and seen.state not in ("OUT_OF_MEMORY", "TIMEOUT"):
                    self._end(one, "interrupted", why)  # we have ended it, before it could say so
                elif state:
                    self._end(one, state, why)
                else:
                    self._again(one, why)

    def _ask_for(self, one: Submitted) -> None:
        """Ask the controller for a job that the accounting has no word of, or none that is new."""
        one.heard = time.monotonic()  # where it does not answer too: each question may take a minute then
        with contextlib.suppress(SilentError):
            one.take_from_controller(ask_controller(one.job), time.monotonic())

    def _committed(self, one: Submitted) -> bool:
        """Whether the output of a stage is there; its COMMIT.json is what is written last."""
        return (self.job.folder(one.task) / "out" / "COMMIT.json").is_file()

    def _end_late_ones(self, late: float) -> None:
        if late > 0 and not self.cancelled:
            self.cancelled = True
            cancel([one.job for one in self.jobs.values()])
        for one in list(self.jobs.values()) if late > LINGER else ():
            self._end(one, "interrupted", f"it had not ended {self.executor.grace:g} s after the stop")

    def _ask_to_stop(self) -> None:
        ids = [one.job for one in self.jobs.values()]
        if self.submissions is not None:
            self.submissions.stop()
        cancel(ids, "--state=PENDING")
        cancel(ids, "--signal=TERM")

    def _unfinished(self) -> list[str]:
        """The jobs that have not said how they ended, and that Slurm still has."""
        quiet = [one for one in self.jobs.values() if one.said(".end") is None]
        try:
            found = ask(one.job for one in quiet)
        except SilentError:
            return [one.job for one in quiet]
        return [one.job for one in quiet if found.get(one.job, Seen(GONE)).state in UNDERWAY]

    def _again(self, one: Submitted, why: str) -> None:
        """Give a stage back, to be handed out again, so often at most as the user allows."""
        self.again[one.task.id] += 1
        if self.again[one.task.id] > self.executor.requeues:
            self._end(one, "failed", f"{why}, and it was begun again requeues={self.executor.requeues} times already")
            return
        cancel([one.job])  # Slurm may requeue it still
        self._keep(one)
        self._say(f"warning: {one.task.label}: {why}; it goes on in another job")
        del self.jobs[one.task.id]
        self._emit({"event": "requeued", "stage": one.task.id})

    def _end(self, one: Submitted, state: str, error: str) -> None:
        lines = self._keep(one)
        if state in BAD:
            if error:
                self._say(f"warning: {one.task.label}: {state}: {error}")
            if lines:
                self._say(f"the last lines of job {one.job}:")
            for line in lines:
                self._say(f"  | {line}")
        del self.jobs[one.task.id]
        event = {"event": "end", "stage": one.task.id, "state": state}
        self._emit({**event, "error": error} if error else event)

    def _keep(self, one: Submitted) -> list[str]:
        """Keep the log of a job beside its stage, where it had that; return its last lines."""
        if self.submissions is None:
            return []
        log = self.submissions.log(one.job)
        if one.begun:  # else another process may be at work on it, whose log that is
            keep_log(log, self.job.folder(one.task) / "log.txt")
        return last_lines(log)

    def _note(self, one: Submitted, text: str) -> None:
        self._emit({"event": "progress", "stage": one.task.id, "done": 0.0, "note": text})

    def _say(self, text: str) -> None:
        self._emit({"event": "log", "text": text})

    def _emit(self, event: dict[str, Any]) -> None:
        self._news = True
        self.emit(event)
