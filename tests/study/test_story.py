"""A study as it lives: it grows, is renamed, sampled from trained longer; then it goes, and what is kept answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpmkit
from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.study import begin
from ddpmkit.study.catalogue import remove_study, rename_study
from ddpmkit.study.cells import find_cell
from ddpmkit.study.garbage import STAGES, collect, find_garbage
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.store import Store

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")

FIRST = {
    "schedules": "linear,cosine", "train_seeds": "0-1", "train_steps": 6, "axis": ["lr_decay=constant"], "warmup": 1,
    "samples": 4, "sampling_steps": 2, "timesteps": 40, "batch_size": 8, "eval_batch": 8, "metrics": "fd",
    "features": "pca:k=2", "backbones": "mlp:width=4:depth=1", "name": "story",
}  # fmt: skip
REGISTRY = Registry(installed=False)


def ran(out: Path, **options: Any) -> dict[str, int]:
    """Run a study with these options, and return how many stages of each kind ran."""
    prepared = prepare(options, out=out, registry=REGISTRY, run_options=RunOptions(1, "cpu", "inline"))
    outcome = run(prepared)
    assert outcome.code == 0
    assert outcome.ran == len(prepared.todo)
    return dict(Counter(s.kind for s in prepared.todo))


def test_each_chapter_runs_what_is_new_and_what_is_kept_answers(few_digits, tmp_path, capsys) -> None:
    out, store = tmp_path / "results", Store(tmp_path / "results")
    assert ran(out, **FIRST, dataset=few_digits) == {"ref": 1, "train": 4, "sample": 4, "score": 4}
    assert ran(out, study="story", schedules="linear,cosine,sigmoid") == {"train": 2, "sample": 2, "score": 2}
    assert ran(out, study="story", train_seeds="0-4") == {"train": 9, "sample": 9, "score": 9}
    assert ran(out, study="story", metrics="fd,sw") == {"ref": 1, "score": 15}
    rename_study(store, "story", "saga")
    assert ran(out, study="saga") == {}
    drawn = ddpmkit.load("saga", "cosine", 1, out=out, device="cpu").sample(2)
    assert ran(out, study="saga", schedules="sigmoid", train_seeds="0", metrics="fd", name="other") == {}
    # Longer by half: one seed of one schedule, so that what is new is few; its steps are the last three alone.
    assert ran(out, study="other", train_steps="6,9")["train"] == 1
    longer = _training(out, "train_steps=9")
    assert begin.began(store.folder("train", longer)).step == 6
    assert store.status("train", longer)["work"] == 3 * 8
    np.testing.assert_array_equal(ddpmkit.load("saga", "cosine", 1, out=out, device="cpu").sample(2), drawn)
    kept = ddpmkit.load("other", "train_steps=9", 0, out=out, device="cpu").sample(2)
    said = _numbers(out, capsys)
    remove_study(store, "saga")
    found = find_garbage(store)
    gone = Counter(item.home.name for item in found.items if item.what == STAGES)
    assert gone["train"] == gone["sample"] == 14  # all but what the other study shares
    collect(store, found)
    assert len(store.stages("train")) == 2
    assert find_garbage(store).items == ()
    # What is kept answers report, sample, and a longer training, which goes on from the ninth step.
    assert _numbers(out, capsys) == said
    np.testing.assert_array_equal(ddpmkit.load("other", "train_steps=9", 0, out=out, device="cpu").sample(2), kept)
    assert ran(out, study="other", train_steps="6,9,12")["train"] == 1
    assert begin.began(store.folder("train", _training(out, "train_steps=12"))).step == 9


def _training(out: Path, cell: str) -> str:
    return find_cell("other", cell, 0, out=out).training


def _numbers(out: Path, capsys) -> str:
    assert main(["report", "other", "--out", str(out), "--format", "csv"]) == 0
    return str(capsys.readouterr().out)
