"""An executor submits, polls and stops; what hands stages out as their needs are met is written once."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import DdpmkitError, Executor, Pool
from ddpmkit.plugin.execution import Job, Task
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.dispatch import dispatch
from ddpmkit.study.plan import make_plan
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.stage import Stage

TINY = {
    "train_steps": "4", "samples": "4", "sampling_steps": "2", "timesteps": "40", "eval_batch": "4", "batch_size": "4",
    "backbones": "unet:channels=4:mults=1", "features": "pca:k=2", "train_seeds": "0", "nll_evals": "16",
}  # fmt: skip

# A process a stage, as an engine of a cluster would start it: it knows of the study what stands in one file.
ENGINE = """
import json, subprocess, sys, tempfile, time
from dataclasses import asdict, dataclass
from pathlib import Path
from ddpmkit import Executor, Pool, hookimpl

class Processes(Pool):
    def __init__(self, job, emit):
        self.job, self.emit, self.places, self.running = job, emit, job.places, {}
        self.folder = tempfile.TemporaryDirectory()

    def submit(self, place, task):
        file = Path(self.folder.name) / f"{task.id}.json"
        file.write_text(json.dumps({"job": self.job.json(), "task": asdict(task)}))
        command = [sys.executable, "-m", "ddpmkit.study.one", str(file)]
        self.running[task.id] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def poll(self, seconds):
        for stage, process in list(self.running.items()):
            if process.poll() is not None:
                del self.running[stage]
                state = process.stdout.read().split()[-1]
                process.stdout.close()
                self.emit({"event": "end", "stage": stage, "state": state})
                return
        time.sleep(seconds)

    def close(self, *, now):
        for process in self.running.values():
            process.terminate()
        self.folder.cleanup()

@dataclass(frozen=True)
class Engine(Executor):
    name = "engine"
    def open(self, job, emit, should_stop):
        return Processes(job, emit)

@hookimpl
def ddpmkit_register_executors():
    return [Engine]
"""


@pytest.mark.long
def test_an_executor_of_forty_lines_runs_a_study_in_processes(tmp_path: Path) -> None:
    assert len([line for line in ENGINE.splitlines() if line.strip()]) <= 40
    plugin = tmp_path / "engine_plugin.py"
    plugin.write_text(ENGINE)
    found = []
    for out, executor in (("here", "inline"), ("there", "engine")):
        options = {**TINY, "metrics": "nll"}
        registry = Registry([str(plugin)], installed=False)
        prepared = prepare(options, out=tmp_path / out, registry=registry, run_options=RunOptions(2, "cpu", executor))
        assert run(prepared).code == 0
        found.append({s.id: prepared.store.result(s.kind, s.id) for s in prepared.plan.stages.values()})
    assert found[0] == found[1]


class Played(Pool):
    """A pool that plays a part: stages end in any order, some fail, some are put back once."""

    def __init__(self, emit: Callable[[dict[str, Any]], None], dice: random.Random, places: int) -> None:
        self.emit, self.dice, self.places = emit, dice, places
        self.running: dict[int, Task] = {}
        self.order: list[str] = []
        self.requeued: set[str] = set()
        self.stopped = 0
        self.closed: list[bool] = []

    def submit(self, place: int, task: Task) -> None:
        assert place not in self.running
        assert 0 <= place < self.places
        assert not self.stopped
        self.running[place] = task
        self.order.append(task.id)

    def poll(self, seconds: float) -> None:
        place = self.dice.choice(list(self.running))
        task = self.running.pop(place)
        if self.dice.random() < 0.2 and task.id not in self.requeued and not self.stopped:
            self.requeued.add(task.id)
            self.emit({"event": "requeued", "stage": task.id})
        else:
            state = "failed" if self.dice.random() < 0.1 else "done"
            self.emit({"event": "end", "stage": task.id, "state": state})

    def stop(self) -> None:
        self.stopped += 1

    def close(self, *, now: bool) -> None:
        self.closed.append(now)


def played(dice: random.Random, places: int, raises: BaseException | None = None) -> tuple[Any, list[Played]]:
    made: list[Played] = []

    class Play(Executor):
        name = "play"

        def open(self, job: Job, emit: Any, should_stop: Any) -> Pool:
            made.append(Played(emit, dice, places))
            if raises is not None:

                def poll(seconds: float) -> None:
                    raise raises

                made[0].poll = poll  # type: ignore[method-assign]
            return made[0]

    return Play(), made


@pytest.fixture(scope="module")
def stages() -> list[Stage[Any]]:
    registry = Registry(installed=False)
    options = {**TINY, "sigmas": "beta,analytic", "schedules": "linear,cosine", "train_seeds": "0,1"}
    return list(make_plan(make_study(options, registry), registry).stages.values())


JOB = Job("out", (), False, ("cpu", "cuda:1"), 3, 100)


def test_each_stage_runs_once_after_what_it_needs_whatever_a_pool_does(stages: list[Stage[Any]]) -> None:
    for seed in range(40):
        dice, events = random.Random(seed), list[dict[str, Any]]()
        executor, made = played(dice, dice.randrange(1, 6))
        dispatch(executor, JOB, stages, events.append, lambda: False)
        (pool,) = made
        ends = [e for e in events if e["event"] == "end"]
        done = {e["stage"] for e in ends if e["state"] == "done"}
        failed = {e["stage"] for e in ends if e["state"] == "failed"}
        assert len(ends) == len(done) + len(failed)
        assert len(pool.order) == len(ends) + len(pool.requeued)
        over: set[str] = set()
        for event in events:
            stage = next(s for s in stages if s.id == event["stage"])
            assert 0 <= event["worker"] < pool.places
            if event["event"] == "start":
                assert {need for _, need in stage.needs} <= over
            elif event["event"] == "end" and event["state"] == "done":
                over.add(stage.id)
        left = {s.id for s in stages} - done - failed
        for stage in stages:  # what is left is behind what failed, and all of that is
            behind = any(need in failed | left for _, need in stage.needs)
            assert (stage.id in left) == behind
        assert pool.closed == [False]


def test_once_stopped_nothing_is_handed_out_and_what_runs_is_waited_for(stages: list[Stage[Any]]) -> None:
    for seed in range(20):
        dice, events = random.Random(seed), list[dict[str, Any]]()
        executor, made = played(dice, 3)
        after = dice.randrange(12)
        dispatch(executor, JOB, stages, events.append, lambda e=events, n=after: len(e) > n)
        (pool,) = made
        assert pool.stopped == 1
        assert pool.running == {}
        assert pool.closed == [False]


@pytest.mark.parametrize(("error", "now"), [(KeyboardInterrupt(), True), (RuntimeError("no"), False)])
def test_a_pool_is_closed_however_the_run_ends(stages: list[Stage[Any]], error: BaseException, now: bool) -> None:
    executor, made = played(random.Random(0), 2, error)
    with pytest.raises(type(error)):
        dispatch(executor, JOB, stages, lambda _: None, lambda: False)
    assert made[0].closed == [now]


def test_a_pool_without_places_leaves_everything(stages: list[Stage[Any]]) -> None:
    executor, made = played(random.Random(0), 0)
    dispatch(executor, JOB, stages, lambda _: None, lambda: False)
    assert made[0].order == []


def test_a_job_and_a_task_survive_json(stages: list[Stage[Any]]) -> None:
    assert Job.from_json(json.loads(json.dumps(JOB.json()))) == JOB
    assert Job.from_json(dataclasses.replace(JOB, registry=object()).json()) == JOB
    assert [JOB.device(place) for place in range(3)] == ["cpu", "cuda:1", "cpu"]
    task = Task("a", "train", "train a", stages[0].json())
    assert Task(**json.loads(json.dumps(dataclasses.asdict(task)))) == task


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("end", "an event is a dict"),
        ({"event": "end", "stage": ["a"], "state": "done"}, "which is no stage of this run"),
        ({"event": "end", "stage": 0, "state": "done"}, "which is no stage of this run"),
        ({"event": "end", "stage": "waiting", "state": "done"}, "which does not run"),
        ({"event": "requeued", "stage": "waiting"}, "which does not run"),
    ],
    ids=str,
)
def test_an_event_that_can_not_be_is_the_executor_s(stages: list[Stage[Any]], event: Any, told: str) -> None:
    if isinstance(event, dict) and event["stage"] == "waiting":
        event = {**event, "stage": stages[-1].id}
    executor, made = played(random.Random(0), 1)
    heard: list[Any] = []

    def emit(found: Any) -> None:
        heard.append(found)
        if found["event"] == "start":
            made[0].emit(event)

    with pytest.raises(DdpmkitError, match=told) as caught:
        dispatch(executor, JOB, stages, emit, lambda: False)
    assert "executor 'play'" in caught.value.message
    assert made[0].closed == [False]


@pytest.mark.long
def test_one_stage_in_a_process_of_its_own_stops_with_a_checkpoint(tmp_path: Path) -> None:
    import signal
    import subprocess
    import sys
    import time

    registry = Registry(installed=False)
    options = {**TINY, "train_steps": "100000", "metrics": "nll"}
    prepared = prepare(options, out=tmp_path, registry=registry, run_options=RunOptions(1, "cpu", "inline"))
    (train,) = (s for s in prepared.plan.stages.values() if s.kind == "train")
    file = tmp_path / "task.json"
    job = dataclasses.replace(JOB, out=str(tmp_path), devices=("cpu",))
    task = Task(train.id, train.kind, train.label, train.json())
    file.write_text(json.dumps({"job": job.json(), "task": dataclasses.asdict(task)}))
    command = [sys.executable, "-P", "-m", "ddpmkit.study.one", str(file), str(tmp_path / "news")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        folder = prepared.store.folder("train", train.id)
        until = time.monotonic() + 120
        while not (folder / "metrics.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
        assert process.stdout is not None
        assert process.stdout.read() == "interrupted\n"
    assert list((folder / "ckpt").glob("*/COMMIT.json"))
    news = json.loads((tmp_path / "news").read_text())
    assert news["begun"] is True
    assert news["event"]["stage"] == train.id


def test_news_of_a_stage_are_its_last_event_and_whether_its_work_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpmkit.study import one

    def told() -> Any:
        return json.loads((tmp_path / "news").read_text())

    emit = one._kept_in(tmp_path / "news")
    emit({"event": "progress", "stage": "a", "done": 0.0, "note": "another process runs it"})
    assert told() == {
        "begun": False,
        "event": {"event": "progress", "stage": "a", "done": 0.0, "note": "another process runs it"},
    }
    emit({"event": "attempt", "stage": "a"})  # is written at once
    assert told() == {"begun": True, "event": {"event": "attempt", "stage": "a"}}
    emit({"event": "progress", "stage": "a", "done": 0.1})  # is too soon
    assert told()["event"] == {"event": "attempt", "stage": "a"}
    monkeypatch.setattr(one, "NEWS_EVERY", 0.0)
    emit({"event": "progress", "stage": "a", "done": 0.2, "loss": float("nan")})
    assert told()["begun"] is True
    assert told()["event"]["done"] == 0.2
    monkeypatch.setattr("ddpmkit.files.write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    emit({"event": "progress", "stage": "a", "done": 0.3})  # a full disk costs the news alone
