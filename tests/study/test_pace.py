"""How long a study may take: by the pace of steps, what comes before the first of them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddpmkit.plugin.registry import Registry
from ddpmkit.study import estimate as module
from ddpmkit.study import pace
from ddpmkit.study.estimate import estimate
from ddpmkit.study.pace import Seen, Steady, seen
from ddpmkit.study.prepare import Prepared, RunOptions, prepare
from ddpmkit.study.runner import run

REGISTRY = Registry(installed=False)
TINY = {
    "timesteps": "50", "sampling_steps": "4", "train_seeds": "0", "metrics": "sw,nll", "train_steps": "6",
    "batch_size": "4", "nll_evals": "16", "backbones": "unet:channels=4:mults=1", "dataset": "gaussian", "warmup": "0",
    "samples": "8", "features": "pixels",
}  # fmt: skip


def planned(out: Path, **options: Any) -> Prepared:
    return prepare({**TINY, **options}, out=out, registry=REGISTRY, run_options=RunOptions(1, "cpu", "inline"))


def told(clock: list[float], *events: tuple[float, dict[str, Any]]) -> Steady:
    """What listens, once it has heard events at these times."""
    steady, passed = Steady(), list[dict[str, Any]]()
    emit = steady.heard(passed.append)
    for at, event in events:
        clock[0] = at
        emit({"event": "progress", "stage": "x", **event})
    assert len(passed) == len(events)
    return steady


def test_a_pace_is_that_between_the_first_and_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: clock[0])
    whole = told(clock, (40.0, {"done": 0.1}), (41.0, {"done": 0.3}), (44.0, {"done": 0.9}))
    assert whole.pace(100.0) == pytest.approx(4.0 / 80)
    # Waiting, a step that another one made, and where one goes on from, are no steps of its own.
    later = ((3.0, {"done": 0.0, "note": "waits"}), (5.0, {"done": 0.5, "begins": True}))
    assert told(clock, *later, (30.0, {"done": 0.6}), (32.0, {"done": 1.0})).pace(100.0) == pytest.approx(0.05)
    assert told(clock, *later, (30.0, {"done": 1.0})).pace(100.0) is None
    assert told(clock).pace(100.0) is None


def records(*some: tuple[float, float, float | None]) -> Seen:
    told = [{"work": w, "seconds": s, **({} if p is None else {"pace": p})} for w, s, p in some]
    return seen((("train", "net"), record) for record in told)[("train", "net")]


def test_what_comes_before_the_first_step_is_counted_once_and_not_by_the_step() -> None:
    known = records((1000.0, 3.0, 0.001), (1000.0, 5.0, 0.001))
    assert known.seconds(1000.0) == 4.0  # as those of the same work took
    assert known.seconds(100_000.0) == pytest.approx(3.0 + 100)
    tiny = records((10.0, 2.0, None))
    assert tiny.seconds(10.0) == 2.0
    assert tiny.seconds(100_000.0) is None  # it is all start-up, for all that is known
    assert tiny.beside(0.001, 100_000.0) == pytest.approx(2.0 - 0.01 + 100)
    assert tiny.most(100_000.0) == pytest.approx(20_000)
    assert records((10_000.0, 50.0, None)).seconds(20_000.0) == pytest.approx(100.0)  # long enough to tell


@pytest.mark.long
def test_a_tiny_study_does_not_say_how_long_a_large_one_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = planned(tmp_path)
    assert run(first).code == 0
    store, step = first.store, 1e-7  # seconds a unit of work, far below what six steps seem to take

    monkeypatch.setattr(module, "_probe", lambda *_: (step, step))
    large = planned(tmp_path, train_steps="60000")
    (training,) = [s for s in large.todo if s.kind == "train"]
    before = next(s for s in first.plan.stages.values() if s.kind == "train")
    took = store.status("train", before.id)
    assert "pace" not in took  # it said once how far it is
    guess = estimate(large)
    each = guess.kinds["train"]["each"]
    assert each is not None
    assert each <= took["seconds"] + step * training.work
    assert each < 0.01 * took["seconds"] / took["work"] * training.work
    assert f"train from {module.PROBE} timed steps of the network" in guess.basis
    assert "from stages that ran here before" in guess.basis  # as what has the same work took
    # The same again, at other seeds, takes as long as it took.
    again = planned(tmp_path, train_seeds="1")
    guess = estimate(again)
    assert guess.basis == "from stages that ran here before"
    assert guess.kinds["train"]["each"] == pytest.approx(took["seconds"])


@pytest.mark.long
def test_a_training_that_says_more_than_once_how_far_it_is_knows_its_pace(tmp_path: Path) -> None:
    ready = planned(tmp_path, train_steps="150", metrics="nll")
    assert run(ready).code == 0
    training = next(s for s in ready.plan.stages.values() if s.kind == "train")
    took = ready.store.status("train", training.id)
    assert 0 < took["pace"] * took["work"] * 100 / 150 <= took["seconds"]  # of the steps behind its first word
    assert estimate(planned(tmp_path, train_steps="300", metrics="nll")).basis == "from stages that ran here before"
