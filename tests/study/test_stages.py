"""Kinds of stage: one file each, one table; a new one is planned, run, stored and shown without another file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import DdpmkitError
from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.kind import StageKind
from ddpmkit.study.plan import make_plan
from ddpmkit.study.planning import Place
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.records import Record
from ddpmkit.study.runner import run
from ddpmkit.study.stage import Output, Stage, upstream
from ddpmkit.study.stages import STAGE_KINDS, read_stage
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.trained import open_training
from ddpmkit.study.work import Work

TINY = {
    "train_steps": "4", "samples": "4", "sampling_steps": "2", "timesteps": "40", "eval_batch": "4", "batch_size": "4",
    "backbones": "unet:channels=4:mults=1", "features": "pca:k=2", "train_seeds": "0", "metrics": "fd",
}  # fmt: skip


@dataclass(frozen=True)
class BrightRecord(Record):
    """The mean grey level of some samples."""

    kind = "bright"
    mean: float


@dataclass(frozen=True, kw_only=True)
class Bright(StageKind):
    """How bright samples are."""

    kind = "bright"
    version = 1
    priority = 7
    cost = "moment"
    per = "sample seed"
    sample: str = upstream("sample")

    @classmethod
    def planned(cls, at: Place) -> Iterable[Stage[Bright]]:
        sampled = at.one(Sample)
        yield at.stage(cls(sample=sampled.id), f"bright {at.cell.label}", at.settings.samples, like=sampled)

    def run(self, w: Work) -> Output:
        levels = w.arrays("sample", self.sample, "samples")["levels"]
        return Output(BrightRecord(float(levels.mean())), {"means": {"each": levels.mean((1, 2, 3))}})


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGE_KINDS, "bright", Bright)


def test_a_new_kind_is_planned_run_stored_and_read_back(bright: None, tmp_path: Path) -> None:
    how = RunOptions(1, "cpu", "inline")
    prepared = prepare(TINY, out=tmp_path, registry=Registry(installed=False), run_options=how)
    (stage,) = (s for s in prepared.plan.stages.values() if s.kind == "bright")
    assert run(prepared).code == 0
    record = prepared.store.record(BrightRecord, stage.id)
    assert record is not None
    assert 0 <= record.mean <= 16
    assert prepared.store.arrays("bright", stage.id, "means")["each"].mean() == pytest.approx(record.mean)
    assert read_stage(json.loads(json.dumps(stage.json()))) == stage
    assert prepare(TINY, out=tmp_path, registry=Registry(installed=False), run_options=how).todo == ()


def test_a_new_kind_is_in_the_dry_run_and_moves_no_other_id(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ids() -> set[str]:
        registry = Registry(installed=False)
        return set(make_plan(make_study(TINY, registry), registry).stages)

    before = ids()
    monkeypatch.setitem(STAGE_KINDS, "bright", Bright)
    assert before < ids()
    flags = [
        word for key, value in TINY.items() if key != "eval_batch" for word in (f"--{key.replace('_', '-')}", value)
    ]
    assert main(["ablate", "-n", "--json", "--out", str(tmp_path), *flags]) == 0
    assert list(json.loads(capsys.readouterr().out)["stages"])[-1] == "bright"


@pytest.mark.parametrize("kind", STAGE_KINDS.values(), ids=list(STAGE_KINDS))
def test_a_kind_says_what_it_is_and_stands_below_what_it_reads(kind: type[StageKind]) -> None:
    assert kind.kind == next(name for name, other in STAGE_KINDS.items() if other is kind)
    assert kind.__doc__
    order = list(STAGE_KINDS)
    for f in fields(kind):
        if "upstream" in f.metadata:
            assert order.index(f.metadata["upstream"]) < order.index(kind.kind)
            assert STAGE_KINDS[f.metadata["upstream"]].priority < kind.priority


def test_every_spec_survives_json(tmp_path: Path) -> None:
    registry = Registry(installed=False)
    options = {**TINY, "sigmas": "beta,analytic", "samplers": "ancestral,ddim", "metrics": "fd,nll"}
    plan = make_plan(make_study(options, registry), registry)
    assert {s.kind for s in plan.stages.values()} == set(STAGE_KINDS)
    for stage in plan.stages.values():
        again = type(stage.spec).from_json(json.loads(json.dumps(stage.spec.json())))
        assert again == stage.spec
        with pytest.raises(DdpmkitError, match="another ddpmkit"):
            type(stage.spec).from_json({**stage.spec.json(), "novel": 1})


def test_a_training_is_opened_from_its_first_digits(tmp_path: Path) -> None:
    import torch

    prepared = prepare(
        TINY, out=tmp_path, registry=Registry(installed=False), run_options=RunOptions(1, "cpu", "inline")
    )
    assert run(prepared).code == 0
    (train,) = (s for s in prepared.plan.stages.values() if s.kind == "train")
    network = open_training(tmp_path, train.id[:8])
    x = torch.zeros(2, 1, 8, 8)
    with torch.inference_mode():
        x0, log_sigma2 = network.predict(network.tables)(x, torch.tensor([0, 39]))
        strided, _ = network.predict(network.tables.strided([0, 39]))(x, torch.tensor([0, 1]))
    assert x0.shape == x.shape
    assert log_sigma2 is None
    torch.testing.assert_close(x0, strided)
    wrong: dict[str, Any] = {"ema": 0.5}
    with pytest.raises(DdpmkitError, match="was not kept"):
        open_training(tmp_path, train.id[:8], **wrong)
    with pytest.raises(DdpmkitError, match="no training in the store"):
        open_training(tmp_path, "zz")


def test_a_result_names_the_bound_of_each_split_and_the_stages_of_its_own_place() -> None:
    registry = Registry(installed=False)
    options = {**TINY, "schedules": "linear,cosine", "train_seeds": "0,1", "sample_seeds": "3,4", "metrics": "fd,nll"}
    plan = make_plan(make_study(options, registry), registry)
    specs = {i: s.spec.json() for i, s in plan.stages.items()}
    for result in plan.results:
        train = specs[result.train]
        assert (train["seed"], train["schedule"]["name"]) == (result.train_seed, f"ddpmkit/{result.cell}")
        for split, bound in (("test", result.nll), ("train", result.nll_train)):
            assert bound is not None
            drawn = specs[specs[bound]["draw"]]
            assert (drawn["split"], drawn["train"]) == (split, result.train)
        assert result.sample is not None
        sampled = specs[result.sample]
        assert (sampled["seed"], sampled["train"]) == (f"{result.train_seed}.{result.sample_seed}", result.train)
        ((_, score, ref),) = result.scores
        assert (specs[score]["sample"], specs[score]["ref"]) == (result.sample, ref)


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"samplers": "dpm-solver++", "metrics": "fd"}, 0),  # its steps have no variance that could be fitted
        ({"samplers": "dpm-solver++", "metrics": "nll"}, 1),
        ({"samplers": "ddim", "metrics": "fd"}, 1),  # Analytic-DDIM
        ({"samplers": "ancestral", "metrics": "fd"}, 1),
        ({"sigmas": "beta", "axis": ["decoder_variance=fitted"], "metrics": "fd"}, 0),
    ],
    ids=str,
)
def test_a_network_is_fitted_only_where_something_reads_it(options: dict[str, Any], fits: int) -> None:
    registry = Registry(installed=False)
    plan = make_plan(make_study({**TINY, "sigmas": "analytic", **options}, registry), registry)
    assert sum(s.kind == "fit" for s in plan.stages.values()) == fits


def test_the_weights_of_a_trained_network_are_those_of_the_average_that_is_asked_for(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    options = {**TINY, "axis": ["ema=0.0,0.9"]}
    prepared = prepare(
        options, out=tmp_path, registry=Registry(installed=False), run_options=RunOptions(1, "cpu", "inline")
    )
    assert run(prepared).code == 0
    (train,) = (s for s in prepared.plan.stages.values() if s.kind == "train")
    stored = load_file(prepared.store.folder("train", train.id) / "ckpt" / "00000004" / "ema.safetensors")
    for rate in (0.0, 0.9):
        for name, value in open_training(tmp_path, train.id, ema=rate).net.state_dict().items():
            assert torch.equal(value, stored[f"{rate!r}/{name}"]), name
    last = {name.removeprefix("0.0/"): value for name, value in stored.items() if name.startswith("0.0/")}
    assert any(not torch.equal(value, stored[f"0.9/{name}"]) for name, value in last.items())
