"""Plugins that break the contract of their kind, in a study: each is refused by its name, before or in its stage."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ddpmkit
from ddpmkit import DdpmkitError, files
from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.estimate import estimate
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.values import read_toml
from ddpmkit.training import loop as training

TINY = {
    "train_steps": 3, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 50, "eval_batch": 16,
    "batch_size": 8, "backbones": "unet:channels=4:mults=1", "features": "pca:k=4", "train_seeds": "0",
    "metrics": "fd",
}  # fmt: skip

PLUGIN = '''
from dataclasses import dataclass, replace
from itertools import count
import numpy as np
from ddpmkit import Backbone, Dataset, Executor, Features, Pool, Sampler, Schedule, Sigma, Weighting, build
from ddpmkit import hookimpl, param

TURN = count()


@dataclass(frozen=True)
class Dice(Schedule):
    name = "dice"
    def betas(self, T):
        return np.full(T, 0.02) + 1e-3 * np.random.default_rng().random(T)


@dataclass(frozen=True)
class DiceSigma(Sigma):
    name = "dice"
    def log_bounds(self, tables):
        found = np.log(tables.b2) - 0.1 * next(TURN)
        return found, found


@dataclass(frozen=True)
class DiceWeights(Weighting):
    name = "dice"
    def weights(self, tables, log_sigma2):
        return tables.snr * (1 + next(TURN))


@dataclass(frozen=True)
class Exits(Weighting):
    name = "exits"
    def weights(self, tables, log_sigma2):
        return tables.snr
    def vlb_share(self, T):
        raise SystemExit(0)


@dataclass(frozen=True)
class Walk(Sampler):
    """The plain walk, spoilt in one way."""
    name = "walk"
    reference = "a test"
    how: str = param("well", "what is wrong")

    def timesteps(self, T, count):
        good = [round((i + 1) * T / count) - 1 for i in range(count)]
        if self.how == "dice":
            return [next(TURN) % (T - 1), T - 1][:count]
        spoilt = {"early": [t - 1 for t in good], "floats": [float(t) for t in good], "fewer": good[1:]}
        return spoilt.get(self.how, good)

    def kernel(self, tables):
        if self.how == "kernel":
            return tables.b2 * (1 + next(TURN)), tables.b2
        return tables.posterior_variance, tables.posterior_x0

    def sample(self, denoise, tables, noise):
        out = denoise(noise(0), -1 if self.how == "minus" else tables.T - 1).x0
        return {"one": out[:1], "whole": out.long()}.get(self.how, out)


@dataclass(frozen=True)
class Mlp(Backbone):
    """One convolution, spoilt in one way."""
    name = "dense"
    reference = "a test"
    how: str = param("well", "what is wrong")

    def build(self, *, in_channels, out_channels, image_size, num_classes=None):
        from torch import nn
        how = self.how
        if how == "build":
            raise KeyError("width")
        if how == "exit":
            raise SystemExit(0)

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Conv2d(in_channels, out_channels, 1)
                self.drop = {"drop": nn.Dropout(0.5), "drop2d": nn.Dropout2d(0.25)}.get(how, nn.Identity())
                self.seen = []

            def forward(self, x, t, y=None):
                assert t.dtype.is_floating_point and t.dim() == 1, t.dtype
                if how == "time":
                    raise RuntimeError(f"{t.dtype} {tuple(t.shape)} {float(t.min()) >= 0} {float(t.max()) < 1000}")
                if how == "forward":
                    raise KeyError("bug")
                out = self.drop(self.layer(x))
                return {"one": out[:1], "half": out[:, :, ::2], "pair": (out, out), "cut": out.detach()}.get(how, out)

        return Net()


@dataclass(frozen=True)
class Held(Dataset):
    """Digits, spoilt in one way."""
    name = "held"
    reference = "a test"
    default_features = ("pca:k=4",)
    how: str = param("well", "what is wrong")

    def load(self):
        good = build("dataset", "digits").load()
        if self.how == "labels":
            return replace(good, labels={**good.labels, "test": good.labels["test"] - 1})
        if self.how == "order":
            return replace(good, train=np.random.default_rng().permutation(good.train))
        spoilt = {
            "empty": good.validation[:0], "floats": good.validation / 16, "none": good.validation[:, :, :0],
            "wide": good.validation[:, :, 1:],
            "bright": good.validation + np.uint8(9),
        }
        return replace(good, validation=spoilt.get(self.how, good.validation))


@dataclass(frozen=True)
class Looks(Features):
    """Pixels, spoilt in one way."""
    name = "looks"
    reference = "a test"
    how: str = param("well", "what is wrong")

    def label(self):
        return None if self.how == "label" else "looks"

    def fingerprint(self):
        return f"{next(TURN)}" if self.how == "print" else "1"

    def load(self, data):
        if self.how == "load":
            return None
        axes = np.random.default_rng().normal(size=(64, 4)) if self.how == "axes" else np.eye(64)[:, 20:24]

        def extract(levels):
            flat = levels.reshape(len(levels), -1) @ axes
            return {"fewer": flat[1:], "nan": flat * np.nan, "flat": flat[:, 0]}.get(self.how, flat)

        return extract


class Liar(Pool):
    places = 1

    def __init__(self, emit):
        self.emit = emit

    def submit(self, place, task):
        self.emit({"event": "end", "stage": task.id, "state": "finished"})

    def poll(self, seconds):
        pass


@dataclass(frozen=True)
class Lies(Executor):
    name = "lies"

    def open(self, job, emit, should_stop):
        return Liar(emit)


@hookimpl
def ddpmkit_register_schedules():
    return [Dice]

@hookimpl
def ddpmkit_register_sigmas():
    return [DiceSigma]

@hookimpl
def ddpmkit_register_weightings():
    return [DiceWeights, Exits]

@hookimpl
def ddpmkit_register_samplers():
    return [Walk]

@hookimpl
def ddpmkit_register_backbones():
    return [Mlp]

@hookimpl
def ddpmkit_register_datasets():
    return [Held]

@hookimpl
def ddpmkit_register_features():
    return [Looks]

@hookimpl
def ddpmkit_register_executors():
    return [Lies]
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "contract_breaker.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def ask(plugin: Path, tmp_path: Path):
    registry = Registry([str(plugin)], installed=False)

    def plan(**options: Any):
        return prepare(
            {**TINY, **options}, out=tmp_path, registry=registry, run_options=RunOptions(jobs=1, executor="inline")
        )

    return plan


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"schedules": "dice"}, "schedule 'dice' at T=50 gives other betas when asked again"),
        ({"sigmas": "dice"}, "sigma 'dice' gives other log-variances when asked again"),
        ({"weightings": "dice"}, "weighting 'dice' gives other weights when asked again"),
        ({"weightings": "exits"}, "weighting 'exits' failed: SystemExit: 0"),
        ({"samplers": "walk:how=dice"}, "sampler 'walk' for 2 of 50 steps gives other timesteps when asked again"),
        ({"samplers": "walk:how=kernel"}, "sampler 'walk' gives another kernel when asked again"),
        ({"samplers": "walk:how=early"}, "sampler 'walk' for 2 of 50 steps ends its timesteps at 48"),
        ({"samplers": "walk:how=floats"}, "sampler 'walk' for 2 of 50 steps gives timesteps of dtype float64"),
        ({"samplers": "walk:how=fewer"}, "sampler 'walk' for 2 of 50 steps gives 1 timestep"),
        ({"dataset": "held:how=empty"}, "dataset 'held': its validation split is empty"),
        ({"dataset": "held:how=floats"}, "dataset 'held': its validation split is float64 (100, 1, 8, 8)"),
        ({"dataset": "held:how=wide"}, "dataset 'held': its validation images are (1, 7, 8) (C, H, W), those of train"),
        ({"dataset": "held:how=none"}, "dataset 'held': its images are (1, 0, 8) (C, H, W), which is nothing"),
        ({"dataset": "held:how=bright"}, "dataset 'held': its validation split holds the level 25, and K = 17"),
        ({"dataset": "held:how=labels"}, "dataset 'held': the labels of its test split go down to -1"),
        ({"dataset": "held:how=order"}, "dataset 'held' gives other images when it is loaded again"),
        ({"features": "looks:how=label"}, "features 'looks': its label is None"),
        ({"features": "looks:how=print"}, "features 'looks' gives another fingerprint when asked again"),
        ({"features": "looks:how=load"}, "features 'looks': load gives a NoneType"),
        ({"backbones": "unet:channels=4,dense:how=build"}, "backbone 'dense' failed: KeyError: 'width'"),
        ({"backbones": "unet:channels=4,dense:how=exit"}, "backbone 'dense' failed: SystemExit: 0"),
        ({"backbones": "dense", "dropout": "0.1"}, "backbone 'dense' has no dropout layer"),
    ],
    ids=lambda v: " ".join(v.values()) if isinstance(v, dict) else "",
)  # fmt: skip
def test_what_breaks_its_contract_is_refused_by_name_before_anything_runs(ask, options, told, tmp_path):
    with pytest.raises(DdpmkitError) as caught:
        ask(**options)
    assert told in caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "store").exists()


def errors(prepared) -> str:
    run(prepared)
    store = prepared.store
    found = [store.status(s.kind, s.id).get("error", "") for s in prepared.plan.stages.values()]
    return next((error for error in found if error), "")


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"backbones": "dense:how=one"}, "backbone 'dense': its network gives shape (1, 1, 8, 8), not (8, 1, 8, 8)"),
        ({"backbones": "dense:how=half"}, "backbone 'dense': its network gives shape (8, 1, 4, 8), not (8, 1, 8, 8)"),
        ({"backbones": "dense:how=pair"}, "backbone 'dense': its network gives a tuple and no tensor"),
        ({"backbones": "dense:how=cut"}, "backbone 'dense': the output of its network has no gradient"),
        ({"samplers": "walk:how=one"}, "sampler 'walk' gives shape (1, 1, 8, 8), not (16, 1, 8, 8)"),
        ({"samplers": "walk:how=whole"}, "sampler 'walk' gives int64, not floating point"),
        ({"samplers": "walk:how=minus"}, "sampler 'walk' asks for step -1"),
        ({"features": "looks:how=fewer"}, "features 'looks' gave 796 rows for 797 images"),
        ({"features": "looks:how=flat"}, "features 'looks' gave float64 (797,), not real numbers of shape (N, D)"),
        ({"features": "looks:how=axes"}, "features 'looks' gives other features of the same images"),
    ],
    ids=lambda v: " ".join(v.values()) if isinstance(v, dict) else "",
)
def test_what_breaks_its_contract_in_a_stage_fails_there_by_name(ask, options, told):
    assert told in errors(ask(**options))


@pytest.mark.long
@pytest.mark.parametrize(
    "options", [{"samplers": "walk"}, {"backbones": "dense"}, {"dataset": "held"}, {"features": "looks"}], ids=str
)
def test_the_same_components_unspoilt_run(ask, options):
    assert errors(ask(**options)) == ""


def test_an_event_that_is_none_is_the_executor_s_fault(ask):
    from dataclasses import replace

    prepared = ask()
    with pytest.raises(DdpmkitError, match="executor 'lies' reports an end as 'finished'"):
        run(replace(prepared, run_options=RunOptions(jobs=1, executor="lies")))


# --- the one that failed is the one that is blamed ----------------------------------------------------------------


@pytest.mark.parametrize("order", ["unet:channels=4,dense:how=forward", "dense:how=forward,unet:channels=4"])
def test_an_estimate_blames_the_network_that_failed(ask, order):
    with pytest.raises(DdpmkitError, match="backbone 'dense' failed: KeyError: 'bug'"):
        estimate(ask(backbones=order))
    with pytest.raises(DdpmkitError, match="backbone 'dense': its network gives shape"):
        estimate(ask(backbones=order.replace("forward", "one")))


# --- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [10, 50])
def test_a_network_is_told_float32_time_below_1000_and_not_the_index(ask, T):
    """What the documents say: everywhere that a network is called, in training as in an estimate."""
    found = errors(ask(backbones="dense:how=time", timesteps=T, schedules="cosine"))
    assert found == "RuntimeError: torch.float32 (8,) True True"


# --- hints that work ----------------------------------------------------------------------------------------------

SPECS = [
    "unet", "unet:mults=1/2/2", "unet:mults=2/3/4/4:attention=7", "unet:channels=6", "unet:heads=3", "unet:mults=",
    "unet:attention=5", "unet:channels=10:heads=4:mults=1/1/1/1/1/1", "unet:attention=4/5:mults=1/2",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("spec", "size"), list(itertools.product(SPECS, [1, 2, 3, 5, 6, 7, 8, 12, 28, 32])))
def test_a_hint_for_a_network_that_does_not_fit_builds_one_that_does(spec, size):
    shape = {"in_channels": 1, "out_channels": 1, "image_size": size}
    try:
        ddpmkit.build("backbone", spec).build(**shape)
    except DdpmkitError as err:
        hinted = ddpmkit.build("backbone", str(err.hint).rpartition("as in ")[2])
        x = torch.zeros(2, 1, size, size)
        assert hinted.build(**shape)(x, torch.zeros(2)).shape == x.shape


@pytest.mark.long
def test_images_of_seven_by_seven_are_told_what_to_type(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (40, 7, 7), dtype=np.uint8)
    np.savez(tmp_path / "seven.npz", train_images=images, test_images=images[:20])
    args = [
        "ablate",
        "-n",
        "--dataset",
        f"npz:path={tmp_path / 'seven.npz'}:validation=10",
        "--out",
        str(tmp_path / "r"),
    ]
    assert main(args) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "hint: give fewer mults, as in unet:mults=1:fourier=true"
    tiny = ["--train-steps", "2", "--batch-size", "4", "--samples", "4", "--sampling-steps", "2", "--timesteps", "50"]
    assert main([*args, *tiny, "--backbones", "unet:mults=1"]) == 0


# --- dropout ------------------------------------------------------------------------------------------------------


class Every(nn.Module):
    """A layer of every kind that drops out."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.planes, self.rows, self.cubes = (
            nn.Dropout(0.5), nn.Dropout2d(0.4), nn.Dropout1d(0.3), nn.Dropout3d(0.2),
        )  # fmt: skip
        self.alpha, self.feature_alpha = nn.AlphaDropout(0.1), nn.FeatureAlphaDropout(0.15)
        self.attention, self.recurrent = nn.MultiheadAttention(4, 2, dropout=0.6), nn.GRU(4, 4, 2, dropout=0.7)

    def rates(self) -> list[float]:
        layers = (self.plain, self.planes, self.rows, self.cubes, self.alpha, self.feature_alpha)
        return [*(m.p for m in layers), self.attention.dropout, self.recurrent.dropout]


def test_dropout_sets_every_kind_of_layer_or_none():
    net = Every()
    own = net.rates()
    assert min(own) > 0
    training.set_dropout(net, None)
    assert net.rates() == own
    for rate in (0.25, 0.0):
        training.set_dropout(net, rate)
        assert net.rates() == [rate] * len(own)
    training.set_dropout(nn.Linear(2, 2), None)


@pytest.mark.long
@pytest.mark.parametrize(("how", "rate"), [("drop", "0.5"), ("drop2d", "0.25")])
def test_a_network_that_keeps_its_own_dropout_is_told_of_once(ask, capsys, how, rate):
    said = f"warning: backbone 'dense' keeps its own dropout of {rate}; --dropout sets all layers"
    first = ask(backbones=f"dense:how={how}", sigmas="beta,beta-tilde")
    assert capsys.readouterr().err.count(said) == 1
    run(first)
    again = ask(
        backbones=f"dense:how={how}", sigmas="beta,beta-tilde"
    )  # nothing left to do, and the report says it still
    assert again.todo == ()
    assert again.plan.warnings == first.plan.warnings
    capsys.readouterr()
    for options in ({"backbones": f"dense:how={how}", "dropout": "0"}, {}, {"dropout": "0.2"}):
        ask(**options)
        assert "keeps its own dropout" not in capsys.readouterr().err


def losses(prepared) -> list[Any]:
    run(prepared)
    trains = [s for s in prepared.plan.stages.values() if s.kind == "train"]
    return [prepared.store.result("train", s.id)["loss"] for s in trains]


@pytest.mark.long
def test_a_network_s_own_dropout_drops_out_unless_it_is_set(ask):
    own, none, same = losses(ask(backbones="dense:how=drop", axis=["dropout=none,0,0.5"]))
    assert own == same
    assert own != none


def test_dropout_none_is_a_value_of_an_axis_and_survives_toml(tmp_path):
    registry = Registry(installed=False)
    for given in ("none,0.1", [None, 0.1], "0.1,none"):
        option = {"axis": [f"dropout={given}"]} if isinstance(given, str) else {"dropout": given}
        study = make_study({**TINY, **option}, registry)
        assert set(study.axes["dropout"]) == {None, 0.1}
        assert {c.label for c in study.cells()} == {"dropout=none", "dropout=0.1"}
        files.write_text(tmp_path / "study.toml", study.toml())
        again = make_study(read_toml(tmp_path / "study.toml"), registry)
        assert again.grid() == study.grid()
    alone = make_study({**TINY, "axis": ["dropout=none"]}, registry)
    assert alone.base.dropout is None
    files.write_text(tmp_path / "study.toml", alone.toml())
    assert make_study(read_toml(tmp_path / "study.toml"), registry).grid() == alone.grid()


@pytest.mark.long
def test_the_built_in_network_trains_alike_without_dropout_and_with_a_rate_of_nothing(ask):
    first, second = losses(ask(axis=["dropout=none,0"]))
    assert first == second
