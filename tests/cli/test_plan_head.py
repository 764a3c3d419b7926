"""What a dry run and the head of a run say: what is left out, time and disk, and what the seeds can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ddpmkit.cli import main
from ddpmkit.cli.plan import print_head
from ddpmkit.cli.power import families, power_json, power_line, visible
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.enter import enter
from ddpmkit.study.estimate import estimate
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.trash import size_of

REGISTRY = Registry(installed=False)
TINY = {
    "timesteps": "50", "sampling_steps": "10", "train_seeds": "0", "metrics": "nll", "train_steps": "2",
    "batch_size": "4", "nll_evals": "16", "backbones": "unet:channels=4:mults=1", "dataset": "gaussian", "warmup": "0",
    "name": "s",
}  # fmt: skip
FLAGS = [word for k, v in TINY.items() for word in (f"--{k.replace('_', '-')}", v) if k != "warmup"]
HERE = RunOptions(1, "cpu", "inline")


def plan(out: Path, **options: Any) -> Any:
    return prepare({**TINY, **options}, out=out, registry=REGISTRY, run_options=HERE, probe=False)


def test_what_a_number_of_seeds_can_show_is_said_before_it_is_run(tmp_path: Path) -> None:
    # Five seeds, one contrast: 1.4 standard deviations of the differences, which are sqrt(2 (1 - r)) of one cell's.
    found = visible(5, 1)
    assert found["0"] == pytest.approx(1.682 * 2**0.5, rel=0.01)
    assert found["0.8"] == pytest.approx(1.682 * 0.4**0.5, rel=0.01)
    five = plan(tmp_path, train_seeds="0-4", schedules="cosine,jsd")
    assert "5 train seeds likely find a gap of 2.4 standard deviations over seeds, 1.1 where" in power_line(five)
    assert power_line(five).endswith("(1 contrast, Holm)")
    more = visible(5, 8)["0"]
    assert (more or 0.0) > 1.5 * (found["0"] or 9.0)  # Holm over eight
    one = plan(tmp_path, schedules="cosine,jsd")
    assert "one train seed shows no difference" in power_line(one)
    assert power_json(five) | {"visible": {}} == {"judged_by": "t test", "fewest_seeds": 2, "visible": {}}


def test_contrasts_are_counted_as_the_report_adjusts_for_them(tmp_path: Path) -> None:
    grid = {"schedules": "cosine,jsd,sigmoid", "predictions": "v,x0", "metrics": "sw,nll", "features": "pixels"}
    # Five differences, two effects of the schedule, one of the prediction.
    assert families(plan(tmp_path, **grid).plan) == (8, 8)
    # The bound sees no sampler: of its two columns one is left.
    grid = {"schedules": "cosine,jsd", "samplers": "ancestral,ddim", "metrics": "sw,nll", "features": "pixels"}
    assert families(plan(tmp_path, **grid).plan) == (5, 1)


@pytest.mark.parametrize(("seeds", "fewest"), [("0-1", 6), ("0-5", 6), ("0-8", 6)])
def test_a_study_that_grows_is_told_by_what_it_will_be_judged(seeds: str, fewest: int, tmp_path: Path) -> None:
    grid = {"schedules": "cosine,jsd,sigmoid"}
    first = plan(tmp_path, train_seeds="0", **grid)
    assert "e-value" not in power_line(first)
    assert "by e-value" in power_line(first, until=True)
    enter(first)
    more = plan(tmp_path, train_seeds=seeds, **grid)
    said, count = power_line(more), len(more.study.train_seeds)
    assert said.startswith("power: train seeds are added to this study, so verdicts are by e-value, not by the t test")
    assert f"none falls below {fewest} train seeds" in said
    assert ("--train-seeds 0-5" in said) == (count < fewest)
    found = power_json(more)
    assert (found["judged_by"], found["fewest_seeds"]) == ("e-value", fewest)
    assert (found["visible"]["0"] is None) == (count < fewest)
    # Once it has grown, the same seeds again are judged alike; with other cells alone it has not.
    entered = enter(more)
    assert power_line(plan(tmp_path, train_seeds=seeds, **grid)) == power_line(entered) == said


def test_a_study_that_grows_by_cells_alone_keeps_the_t_test(tmp_path: Path) -> None:
    enter(plan(tmp_path, train_seeds="0-2", schedules="cosine,jsd"))
    more = plan(tmp_path, train_seeds="0-2", schedules="cosine,jsd,sigmoid")
    assert power_line(more).endswith("(2 contrasts, Holm)")


@pytest.mark.long
def test_what_conditions_leave_out_is_counted_and_so_is_the_impossible(tmp_path: Path, capsys: Any) -> None:
    args = ["--no-plugins", "ablate", *FLAGS, "--out", str(tmp_path), "-n", "--no-probe"]
    grid = ["--schedules", "cosine,constant", "--sampling-steps", "10,100", "--sigmas", "beta,beta-tilde"]
    assert main([*args, *grid, "--exclude", "sigma=beta and schedule=constant", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["cells"]), len(found["excluded"]), found["left_out"]) == (3, 3, 2)
    assert found["visible"] == {"0": None, "0.8": None}
    assert main([*args, *grid, "--exclude", "sigma=beta and schedule=constant"]) == 0
    assert "left out: 2 of 8 points, by --only or --exclude" in capsys.readouterr().err
    assert main([*args, *grid, "--design", "one-at-a-time", "--train-seeds", "0-2"]) == 0
    assert "can't be seen" in capsys.readouterr().err


@pytest.mark.long
def test_disk_is_reckoned_from_the_network_and_then_from_stages_like_these(tmp_path: Path, capsys: Any) -> None:
    options = {**TINY, "metrics": "nll,sw", "features": "pixels", "samples": "8"}
    ready = prepare(options, out=tmp_path, registry=REGISTRY, run_options=HERE)
    print_head(ready)  # as a run begins
    said = capsys.readouterr().err
    assert "plan: 1 cells, 1 results; 8 of 8 stages to do: " in said
    assert "power: one train seed" in said
    assert "estimate" not in said  # of two steps none is timed
    guess = estimate(ready).size
    training = next(s for s in ready.plan.stages.values() if s.kind == "train")
    assert run(ready).code == 0
    there = size_of(ready.store.folder("train", training.id))
    assert 0.5 * there < (guess or 0) < 2 * there
    print_head(prepare(options, out=tmp_path, registry=REGISTRY, run_options=HERE))
    assert "plan:" not in capsys.readouterr().err  # nothing is left to do
    again = prepare({**options, "train_seeds": "0,1", "name": "t"}, out=tmp_path, registry=REGISTRY, run_options=HERE)
    whole = sum(size_of(again.store.folder(s.kind, s.id)) for s in ready.plan.stages.values() if s.kind != "ref")
    assert estimate(again).size == pytest.approx(whole, rel=0.05)
