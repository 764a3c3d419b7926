"""What a dry run and the head of a run say: what is left out, time and disk, and what the seeds can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import files
from ddpmkit.cli import main
from ddpmkit.cli.plan import power_line, print_head, visible
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
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


def test_what_a_number_of_seeds_can_show_is_said_before_it_is_run() -> None:
    study = make_study({**TINY, "train_seeds": "0-4"}, REGISTRY)
    # Five seeds, one contrast: 1.4 standard deviations of the differences, which are sqrt(2 (1 - r)) of one cell's.
    found = visible(study, 2)
    assert found["0"] == pytest.approx(1.682 * 2**0.5, rel=0.01)
    assert found["0.8"] == pytest.approx(1.682 * 0.4**0.5, rel=0.01)
    assert "5 train seeds likely find a gap of 2.4 standard deviations over seeds, 1.1 where" in power_line(study, 2)
    more = visible(study, 9)["0"]
    assert (more or 0.0) > 1.5 * (found["0"] or 9.0)  # Holm over eight
    one = make_study(TINY, REGISTRY)
    assert "one train seed shows no difference" in power_line(one, 3)


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


def test_a_smoke_test_says_nothing_of_the_pace_of_a_whole_training(tmp_path: Path) -> None:
    """Four steps take ten seconds to start, and no training of 1200 takes an hour for it."""
    ready = prepare({**TINY, "train_steps": "1200"}, out=tmp_path, registry=REGISTRY, run_options=HERE, probe=False)
    training = next(s for s in ready.plan.stages.values() if s.kind == "train")

    def finished(stage: str, share: float, seconds: float) -> float | None:
        record = {"state": "done", "work": training.work * share, "seconds": seconds, "how": training.recipe}
        folder = ready.store.folder("train", stage * 64)
        folder.mkdir(parents=True)
        files.write_sealed(folder / "status.json", record)
        return estimate(ready).kinds["train"]["each"]

    assert finished("a", 4 / 1200, 10.0) is None
    assert finished("b", 1.0, 60.0) == pytest.approx(60)
    assert finished("c", 0.5, 40.0) == pytest.approx(70)  # the median of 60 and 80
