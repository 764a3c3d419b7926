"""Run stages on the nodes of a Ray cluster."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import DdpmkitError, Emit, Event, Executor, Job, Pool, ShouldStop, Task, param

if TYPE_CHECKING:
    from ddpmkit.builtin.executors._ray_cluster import Cluster, Share

PARTING = 2.0  # seconds for actors to take away what was brought to their nodes
IDLE = 30.0  # seconds without a stage after which a place goes back to Ray
LOOK = 10.0  # seconds between two looks at how much room there is
STALE = 86400.0  # seconds after which a mark that nobody has touched is that of a run that was killed
SLOW = 40.0  # seconds after which a stage that Ray has found no node for is worth a note; a node looks 30 s for --out
SLACK = 15.0  # seconds beyond the grace in which a node must have said how a stage ended


@dataclass(frozen=True)
class Ray(Executor):
    """Run stages on the nodes of a Ray cluster, which all see the results folder; what a lost node had runs elsewhere.

    A place is an actor that holds its share of a node while there are stages for it, and a worker of ``local`` there:
    one thread, a log beside the stage, and an end for what crashes or hangs. By default there are as many places as the
    nodes have room for; ``--jobs`` says another number. A file that ``-p`` names is brought along; other plugins, torch
    and ddpmkit must be installed on every node. Ray carries text alone, and its usage statistics are off.
    """

    name = "ray"
    reference = "Moritz et al. 2018, Ray: a distributed framework for emerging AI applications, OSDI"
    elsewhere = True
    address: str | None = param(None, "host of the cluster, or host%3Aport; else RAY_ADDRESS, else this machine")
    cpus: float = param(1.0, "CPUs that Ray sets aside for a stage", gt=0)
    gpus: float | None = param(None, "GPUs likewise, 0.5 for two stages on each; else 1 where any node has one", ge=0)
    memory: float = param(0.0, "GiB of memory likewise; 0 sets none aside", ge=0)
    working_dir: str | None = param(None, "a folder that is copied to each node, to be the working folder there")
    losses: int = param(3, "how often a stage is handed out again that was lost with its node", ge=0)
    grace: float = param(30.0, "seconds that what runs is given, once stopped, before it is killed", ge=0)

    def __post_init__(self) -> None:
        """Refuse shares that Ray has not."""
        if self.gpus is not None and self.gpus > 1 and not self.gpus.is_integer():
            raise ValueError(f"gpus must be a share of one or a whole number, got {self.gpus:g}")

    def open(self, job: Job, emit: Emit, should_stop: ShouldStop) -> Pool:
        """Join the cluster.

        Raises:
            DdpmkitError: without Ray or a cluster, or where GPUs are asked for and ruled out.
        """
        from ddpmkit.builtin.executors._ray_cluster import connect
        from ddpmkit.builtin.executors._ray_files import plugin_files

        if job.asked_device.startswith("cuda") and self.gpus == 0:
            raise DdpmkitError(f"--device {job.asked_device} with ray:gpus=0", "leave one of the two out")
        files = plugin_files(job.plugins, self.working_dir)
        cluster = connect(self.address, self.working_dir, lambda text: emit({"event": "log", "text": text}))
        with contextlib.ExitStack() as undo:
            undo.callback(cluster.close)
            places = self._places(job, files, cluster, emit)
            undo.pop_all()
        return places

    def _places(self, job: Job, files: dict[str, str | None], cluster: Cluster, emit: Emit) -> _Places:
        from ddpmkit.builtin.executors._ray_cluster import Share

        gpus = self.gpus
        if gpus is None:
            wanted = job.asked_device.startswith("cuda") or (job.asked_device == "auto" and cluster.has_gpus)
            gpus = 1.0 if wanted else 0.0
        device = job.asked_device if job.asked_device in ("cpu", "mps") else "cuda" if gpus else "cpu"
        there = replace(job, out=str(Path(job.out).absolute()), devices=(device,), places=1, plugins=tuple(files))
        texts = {name: text for name, text in files.items() if text is not None}
        share = Share(self.cpus, gpus, self.memory)
        return _Places(there, texts, share, emit, cluster, losses=self.losses, grace=self.grace)


@dataclass(eq=False)
class _Seat:
    """An actor, and the stage that it has."""

    actor: Any
    since: float  # it has had the stage, or none
    task: Task | None = None
    answer: Any = None  # what Ray will say of it
    up: bool = False  # it has answered once
    begun: bool = True  # it has had the stage, as far as is known: it has answered of it, or is new
    told: bool = False  # that it waits


@dataclass
class _Places(Pool):
    """One run: who is at work, and who waits for a stage."""

    job: Job
    files: dict[str, str]
    share: Share
    emit: Emit
    cluster: Cluster
    losses: int = field(kw_only=True)
    grace: float = field(kw_only=True)
    places: int = field(default=1, init=False)
    running: dict[int, _Seat] = field(default_factory=dict, init=False)
    idle: list[_Seat] = field(default_factory=list, init=False)
    lost: Counter[str] = field(default_factory=Counter, init=False)
    deadline: float | None = field(default=None, init=False)  # when what still runs is ended; None until it is stopped
    looked: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self.mark = Path(self.job.out, f".ray-{self.job.run or id(self)}")
        self.mark.touch()
        _sweep(self.mark)
        told = {"job": self.job.json(), "files": self.files, "mark": str(self.mark), "grace": self.grace}
        self.told = json.dumps(told)
        self._look()

    def _look(self) -> None:
        """Count the places, for nodes come and go, and show that the mark is somebody's."""
        if time.monotonic() - self.looked > LOOK:
            self.looked = time.monotonic()
            with contextlib.suppress(OSError):  # a file system that stumbles
                self.mark.touch()
            self.places = self.job.asked_jobs or max(self.cluster.room(self.share), 1)

    def submit(self, place: int, task: Task) -> None:
        """Give a stage to an actor that has none, or to a new one."""
        seat = self.idle.pop() if self.idle else _Seat(self.cluster.seat(self.share, self.told), 0.0)
        seat.task, seat.since, seat.begun = task, time.monotonic(), not seat.up
        seat.answer = self.cluster.ask(seat.actor, "begin", json.dumps(asdict(task)))
        self.running[place] = seat

    def poll(self, seconds: float) -> None:
        """Take in what one actor says; look after those that say nothing."""
        self._look()
        self._let_idle_ones_go()
        if self.deadline is not None and time.monotonic() > self.deadline:
            self._cut_off(f"it had not ended {self.grace:g} s after the stop", *self.running)
        if not self.running:
            time.sleep(0 if self.deadline is not None else seconds)
            return
        answer = self.cluster.heard([seat.answer for seat in self.running.values()], seconds)
        if answer is None:
            self._tell_who_waits()
            return
        from ddpmkit.builtin.executors._ray_cluster import Lost

        place = next(p for p, seat in self.running.items() if seat.answer == answer)
        try:
            said = self.cluster.read(answer)
            if "refused" in said:
                raise DdpmkitError(
                    f"a node of the Ray cluster {said['refused']}", "--out must name a folder that all nodes share"
                )
        except Lost as err:
            self._lose(place, str(err))
            return
        except DdpmkitError:
            self._cut_off("it had not begun", place)  # or the end of the run would hear the same answer again
            raise
        self._take(place, said["events"])

    def _take(self, place: int, events: list[Event]) -> None:
        seat = self.running[place]
        seat.up, seat.begun = True, True
        ended = any(e["event"] in ("end", "requeued") for e in events)
        if ended:
            del self.running[place]
            seat.task, seat.since = None, time.monotonic()
            self.idle.append(seat)
        else:
            seat.answer = self.cluster.ask(seat.actor, "news")
        for event in events:
            self.emit({**event, "worker": place})
        waits = next((p for p, other in self.running.items() if other.told and not other.up), None)
        if ended and waits is not None and self.deadline is None:  # what waits comes before what is new
            self.submit(waits, self._drop(waits))

    def _lose(self, place: int, why: str) -> None:
        """Hand a stage out again whose actor is gone; whoever still has it will see that somebody else does."""
        seat, task = self.running[place], self._drop(place)
        begun, again = seat.begun, "begins again" if seat.up and seat.begun else "had not begun: it begins"
        self._part(list(self.idle))  # they may be on the same node, and none of them would say so before its next stage
        if self.deadline is not None:
            self._end(place, task, "interrupted", f"it was lost: {why}")
        elif begun and self.lost[task.id] >= self.losses:
            error = f"it was lost {self.losses + 1} times: {why}"
            self._say(f"warning: {task.label}: {error}")
            self._end(place, task, "failed", error)
        else:
            self.lost[task.id] += begun  # an actor that was gone before is no loss of this stage
            self._say(f"warning: {task.label}: it was lost, and {again} elsewhere: {why}")
            self.emit({"event": "requeued", "stage": task.id, "worker": place})

    def _cut_off(self, why: str, *places: int) -> None:
        self._clear([seat for place in places if (seat := self.running[place]).up])
        for place, task in [(place, self._drop(place)) for place in places]:
            self._end(place, task, "interrupted", f"it was killed: {why}")

    def _drop(self, place: int) -> Task:
        seat = self.running.pop(place)
        self.cluster.end(seat.actor)
        assert seat.task is not None
        return seat.task

    def _end(self, place: int, task: Task, state: str, error: str) -> None:
        self.emit({"event": "end", "stage": task.id, "state": state, "worker": place, "error": error})

    def _let_idle_ones_go(self) -> None:
        now = time.monotonic()
        self._part([seat for seat in self.idle if now - seat.since > IDLE])

    def _part(self, seats: list[_Seat]) -> None:
        """Give places back to Ray."""
        self._clear(seats)
        for seat in seats:
            self.idle.remove(seat)
            self.cluster.end(seat.actor)

    def _clear(self, seats: list[_Seat]) -> None:
        """Have actors take away what was brought to their nodes."""
        answers = [self.cluster.ask(seat.actor, "leave") for seat in seats if self.files]
        until = time.monotonic() + PARTING
        while answers and (left := until - time.monotonic()) > 0:
            gone = self.cluster.heard(answers, left)
            answers = [answer for answer in answers if gone is not None and answer != gone]

    def _tell_who_waits(self) -> None:
        now = time.monotonic()
        for place, seat in self.running.items():
            if not seat.up and not seat.told and now - seat.since > SLOW and seat.task is not None:
                seat.told = True
                note = f"waits for a node with {self.share} to spare"
                self.emit({"event": "progress", "stage": seat.task.id, "done": 0.0, "note": note, "worker": place})
                if not self.cluster.room(self.share):
                    self._say(f"warning: no node of the Ray cluster has {self.share}; stages wait until one has")

    def stop(self) -> None:
        """Ask for checkpoints, and say who is waited for; what no node has begun has nothing to save."""
        self.deadline = time.monotonic() + self.grace + SLACK
        for place, seat in list(self.running.items()):
            if seat.up:
                self.cluster.ask(seat.actor, "stop")
            else:
                self._cut_off("it had not begun", place)
        labels = [seat.task.label for seat in self.running.values() if seat.task is not None]
        if labels:
            self._say(
                f"stopping: waiting for {'; '.join(labels)}; what has not ended in {self.grace:g} s is killed; "
                "Ctrl-C again kills it now"
            )

    def close(self, *, now: bool) -> None:
        """End all actors and leave; unless ``now``, what still runs is asked for a checkpoint first."""
        try:
            if self.running and not now:
                if self.deadline is None:
                    self.stop()
                while self.running:
                    self.poll(1.0)
        finally:
            why = "a second signal" if now else "the run ended before it did"
            with (
                contextlib.ExitStack() as last
            ):  # each of these, from the last to the first, whatever becomes of others
                last.callback(self.mark.unlink, missing_ok=True)
                last.callback(self.cluster.close)
                last.callback(self._part, list(self.idle))
                last.callback(self._cut_off, why, *self.running)

    def _say(self, text: str) -> None:
        self.emit({"event": "log", "text": text})


def _sweep(mark: Path) -> None:
    """Remove marks that runs have left which were killed: whoever is at work touches its own, by the same clock."""
    now = mark.stat().st_mtime
    for other in mark.parent.glob(".ray-*"):
        with contextlib.suppress(OSError):  # somebody else removes it, or owns it
            if now - other.lstat().st_mtime > STALE:
                other.unlink()
