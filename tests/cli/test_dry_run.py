"""A dry run of many cells is a summary of some twenty lines; JSON keeps them all."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from ddpmkit.cli import main
from ddpmkit.cli.plan import axis_rows, cell_rows, print_plan
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.estimate import Guess
from ddpmkit.study.plan import Plan, Result
from ddpmkit.study.prepare import Prepared, RunOptions, excluded_lines
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages.train import Train
from ddpmkit.study.store import Store

TINY = ["--metrics", "nll", "--train-seeds", "0", "--timesteps", "50", "--backbones", "unet:channels=4:mults=1"]
MANY = ["--schedules", "linear,cosine,sigmoid,random-walk", "--predictions", "eps,v", "--sampling-steps", "5,6,7,8,9"]


def planned(**axes: Any) -> Plan:
    """A plan of these axes with one stage a cell; nothing is built."""
    study = make_study({"name": "many", "train_seeds": "0", **axes}, Registry(installed=False))
    cells = study.cells()
    fields = dict.fromkeys((f.name for f in dataclasses.fields(Train)), None)
    specs = [(c.label, Train(**{**fields, "data": c.label})) for c in cells]  # type: ignore[arg-type]
    stages = {s.id: s for label, spec in specs for s in [Stage(spec, {}, f"train {label}", 1.0)]}
    results = [Result(c.label, 0, 0, "", None, (), None, None) for c in cells]
    return Plan(study, None, cells, stages=stages, results=results)  # type: ignore[arg-type]


@pytest.fixture
def dry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def run(plan: Plan, *, as_json: bool = False) -> tuple[str, str]:
        guess = Guess(60.0, 2, "a guess", {"train": {"each": 1.0, "together": 60.0}})
        monkeypatch.setattr("ddpmkit.cli.plan.estimate", lambda _: guess)
        todo = tuple(plan.stages.values())
        prepared = Prepared(plan.study, plan, Store(tmp_path), Registry(installed=False), todo, RunOptions())
        print_plan(prepared, as_json=as_json)
        out, err = capsys.readouterr()
        return out, err

    return run


@pytest.mark.long
def test_five_thousand_cells_are_some_twenty_lines(dry: Any) -> None:
    rates = [f"{i / 10000}" for i in range(1, 251)]
    plan = planned(schedules="linear,cosine", predictions="eps,x0", ema="0.9,0.95,0.98,0.99,0.999", learning_rate=rates)
    assert len(plan.cells) == 5000
    out, err = dry(plan)
    assert 10 < len((out + err).splitlines()) <= 25
    for said in ("linear (2500), cosine (2500)", "0.9 (1000), 0.95 (1000)", "0.0001 (20)", "0.025 (20)", "4994 more"):
        assert said in out
    assert out.count("learning_rate=") == 6  # the first cells and the last
    assert "train\t5000\t0\t5000" in out


def test_json_keeps_every_cell(dry: Any) -> None:
    plan = planned(learning_rate=[f"{i / 1000}" for i in range(1, 61)], ema="0.9,0.99")
    out, _ = dry(plan, as_json=True)
    assert json.loads(out)["cells"] == [c.label for c in plan.cells]
    assert len(plan.cells) == 120


def test_twenty_cells_are_listed_and_one_more_is_not(dry: Any) -> None:
    for count, listed in ((20, True), (21, False)):
        out, _ = dry(planned(learning_rate=[f"{i / 1000}" for i in range(1, count + 1)]))
        assert ("learning_rate=0.01\t0.01\n" in out) == listed
        titles = [line[2:].split(":")[0] for line in out.splitlines() if line.startswith("# ")]
        assert [t.partition(" ")[0] for t in titles] == (
            ["study", "stages"] if listed else ["study", "cells", "stages"]
        )


@pytest.mark.long
def test_the_impossible_ones_are_counted_by_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["ablate", *TINY, *MANY, "--axis", "ema=0.9,0.99,0.999", "-n", "--out", str(tmp_path)]
    assert main(["--no-plugins", *args]) == 0
    out, err = capsys.readouterr()
    assert err.count("excluded:") == 1
    assert "excluded: random-walk sampling_steps=5 v ema=0.9 and 14 more cells: v-prediction needs" in err
    assert len((out + err).splitlines()) <= 25
    assert "random-walk (15)" in out
    assert "linear (30)" in out
    assert main(["--no-plugins", *args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["cells"]), len(found["excluded"])) == (105, 15)


def test_few_impossible_ones_are_named_each() -> None:
    plan = planned(schedules="linear")
    plan.excluded = [(f"cell {i}", "a reason") for i in range(12)]
    assert excluded_lines(plan) == [f"excluded: cell {i}: a reason" for i in range(12)]
    plan.excluded = [(f"cell {i}", f"reason {i}") for i in range(30)]
    assert len(excluded_lines(plan)) == 13
    assert excluded_lines(plan)[-1] == "excluded: 18 more cells, for other reasons"


@pytest.mark.long
def test_of_any_grid_the_counts_add_up() -> None:
    rng = random.Random(25)
    for _ in range(40):
        plan = planned(
            learning_rate=[f"{i / 1000}" for i in range(1, rng.randint(2, 12))],
            ema=[f"0.{90 + i}" for i in range(rng.randint(1, 7))],
            schedules=rng.sample(["linear", "cosine", "sigmoid", "quadratic"], rng.randint(1, 4)),
        )
        cells = rng.sample(plan.cells, rng.randint(1, len(plan.cells)))  # as if the others were impossible
        for axis, levels, said in axis_rows(cells):
            counts = [int(part.rpartition("(")[2][:-1]) for part in said.split(", ") if "more" not in part]
            assert int(levels) == len({c.point[axis] for c in cells})
            assert sum(counts) == len(cells) if int(levels) <= 7 else sum(counts) <= len(cells)
        assert [row[0] for row in cell_rows(cells)] == [c.label for c in cells]
