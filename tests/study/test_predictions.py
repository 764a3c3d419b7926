"""A prediction is one file: a plugin's is trained, sampled from and bounded, and is eps where it must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpmkit
from ddpmkit import DdpmkitError
from ddpmkit import device as devices
from ddpmkit.cli import main
from ddpmkit.plugin import contract
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.plan import Plan, make_plan
from ddpmkit.study.prepare import Prepared, RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.trained import load_trained, open_training, status_of_training

INLINE = RunOptions(1, "cpu", "inline")
TINY = {
    "train_steps": 6, "samples": 6, "sampling_steps": 3, "nll_evals": 16, "timesteps": 40, "eval_batch": 64,
    "batch_size": 8, "backbones": "unet:channels=4:mults=1:middle_attention=false", "features": "pca:k=4",
    "train_seeds": "0",
}  # fmt: skip

PLUGIN = '''
from dataclasses import dataclass

from ddpmkit import Array, Factors, Prediction, Tables, hookimpl, param


@dataclass(frozen=True)
class Times(Prediction):
    """The noise, k times: k eps."""

    name = "times"
    k: float = param(1.0, "the factor", gt=0)

    def target(self, at: Factors, x0, eps, xt):
        return self.k * eps

    def x0hat(self, at: Factors, xt, out):
        return (xt - at.noise * (out / self.k)) / at.signal

    def divisor(self, tables: Tables) -> Array:
        return self.k**2 * tables.snr

    def impossible(self, tables: Tables):
        return None if tables.signal.all() else "times-prediction needs signal"


@dataclass(frozen=True)
class F(Prediction):
    """EDM's F: x0hat = c_skip x_t / m_t + c_out F, for data of standard deviation s."""

    name = "f"
    reference = "Karras et al. 2022 (arXiv 2206.00364), eq. 7 and Table 1"
    s: float = param(0.5, "sigma_data", gt=0)

    def target(self, at: Factors, x0, eps, xt):
        return (x0 - self.skip(at) * xt) / self.out(at)

    def x0hat(self, at: Factors, xt, out):
        return self.skip(at) * xt + self.out(at) * out

    def divisor(self, tables: Tables) -> Array:
        return (tables.noise2 + self.s**2 * tables.signal**2) / (tables.noise2 * self.s**2)

    def skip(self, at):  # c_skip / m_t
        return self.s**2 * at.signal / (at.noise**2 + self.s**2 * at.signal**2)

    def out(self, at):
        return at.noise * self.s / (at.noise**2 + self.s**2 * at.signal**2) ** 0.5


@hookimpl
def ddpmkit_register_predictions():
    return [Times, F]
'''


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def plan(plugins: list[str], **options: Any) -> Plan:
    registry = Registry(plugins, installed=False)
    return make_plan(make_study({**TINY, **options}, registry), registry)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, few_digits: str) -> tuple[Prepared, str]:
    """Eps, the same by a plugin, twice as much of it, and EDM's F: trained, sampled from and bounded."""
    folder = tmp_path_factory.mktemp("predictions")
    plugin = write(folder, PLUGIN)
    options = {**TINY, "dataset": few_digits, "predictions": "eps,times,times:k=2,f", "name": "mine"}
    options["axis"] = ["warmup=0"]  # so that six steps make networks that differ
    prepared = prepare(options, out=folder / "out", registry=Registry([plugin], installed=False), run_options=INLINE)
    assert run(prepared).code == 0
    return prepared, plugin


CELLS = ["eps", "times", "times:k=2.0", "f"]


@pytest.mark.long
def test_a_prediction_of_one_file_is_trained_sampled_from_and_bounded(studied: tuple[Prepared, str]) -> None:
    prepared, _ = studied
    store = prepared.store
    found = {r.cell: r for r in prepared.plan.results}
    assert list(found) == CELLS
    bounds = {c: store.result("nll", str(r.nll))["clipped"]["total"] for c, r in found.items()}
    drawn = {c: store.arrays("sample", str(r.sample), "samples")["levels"] for c, r in found.items()}
    errors = {c: store.result("train", r.train)["eps_mse"] for c, r in found.items()}
    assert all(np.isfinite(v) for v in (*bounds.values(), *errors.values()))
    assert len({r.train for r in found.values()}) == 4
    # k = 1 is eps, to the last bit: trained, sampled from, bounded.
    assert bounds["times"] == bounds["eps"]
    assert errors["times"] == errors["eps"]
    np.testing.assert_array_equal(drawn["times"], drawn["eps"])
    assert errors["times:k=2.0"] == pytest.approx(errors["eps"], rel=0.3)  # logged as an error of eps, not of 2 eps
    for other in ("times:k=2.0", "f"):
        assert bounds[other] != bounds["eps"]
        assert not np.array_equal(drawn[other], drawn["eps"])


@pytest.mark.long
def test_the_trained_network_comes_back_with_its_prediction(studied: tuple[Prepared, str]) -> None:
    prepared, plugin = studied
    store = prepared.store
    trains = {r.cell: r.train for r in prepared.plan.results}
    again = Registry([plugin], installed=False)
    network = open_training(store.out, trains["times:k=2.0"], registry=again)
    assert str(network.prediction) == "times:k=2.0"
    assert open_training(store.out, trains["eps"]).prediction == ddpmkit.build("prediction", "eps")
    with pytest.raises(DdpmkitError, match="prediction 'f' from mine"):
        open_training(store.out, trains["f"], registry=Registry(installed=False))


@pytest.mark.long
def test_a_training_that_is_older_than_plugins_of_this_kind_says_it_by_name(studied: tuple[Prepared, str]) -> None:
    prepared, _ = studied
    store, registry = prepared.store, Registry(installed=False)
    train = next(r.train for r in prepared.plan.results if r.cell == "eps")
    how = {k: v for k, v in status_of_training(store, train)["how"].items() if k != "prediction"}
    sigma = registry.build("sigma", "beta-tilde")
    network = load_trained(store, registry, train, how, ema=0.99, sigma=sigma, device=devices.resolve("cpu"))
    assert network.prediction == registry.build("prediction", "eps")


@pytest.mark.long
def test_the_likelihood_of_the_command_line_knows_it_too(
    studied: tuple[Prepared, str], capsys: pytest.CaptureFixture[str]
) -> None:
    prepared, plugin = studied
    train = next(r.train for r in prepared.plan.results if r.cell == "f")
    out = str(prepared.store.out)
    assert main(["likelihood", train[:12], "-p", plugin, "--out", out, "--nll-evals", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert np.isfinite(found["clipped"]["total"])


def test_what_enters_a_training_is_the_divisor_and_the_file_and_of_a_built_in_the_name(tmp_path: Path) -> None:
    def identity(plugins: list[str], prediction: str) -> dict[str, Any]:
        made = plan(plugins, predictions=prediction, metrics="fd")
        (train,) = (s for s in made.stages.values() if s.kind == "train")
        found: dict[str, Any] = train.spec.prediction
        return found

    plugin = write(tmp_path, PLUGIN)
    assert identity([plugin], "eps") == {"name": "ddpmkit/eps", "params": {}, "version": 1}
    one, two = identity([plugin], "times"), identity([plugin], "times:k=2")
    assert one["name"] == "mine/times"
    assert one["values"] != two["values"]
    assert (one["params"], two["params"]) == ({"k": 1.0}, {"k": 2.0})
    edited = write(tmp_path, PLUGIN + "\n# edited\n", "edited.py")
    assert identity([edited], "times")["version"] != one["version"]


def test_an_impossible_pair_is_excluded_with_the_words_of_the_prediction(tmp_path: Path) -> None:
    made = plan([write(tmp_path, PLUGIN)], predictions="times,f", schedules="jsd")
    assert [c.label for c in made.cells] == ["f"]
    assert made.excluded == [("times", "times-prediction needs signal; the schedule is jsd")]


READ = '''
import pathlib
from dataclasses import dataclass
from ddpmkit import Prediction, hookimpl
@dataclass(frozen=True)
class Read(Prediction):
    """k eps, k from a file."""
    name = "read"
    def k(self):
        return float(pathlib.Path({path!r}).read_text())
    def target(self, at, x0, eps, xt):
        return self.k() * eps
    def x0hat(self, at, xt, out):
        return (xt - at.noise * out / self.k()) / at.signal
    def divisor(self, tables):
        return self.k() ** 2 * tables.snr
@hookimpl
def ddpmkit_register_predictions():
    return [Read]
'''


def test_a_prediction_that_changes_between_plan_and_work_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factor = tmp_path / "factor.txt"
    factor.write_text("1")
    registry = Registry([write(tmp_path, READ.format(path=str(factor)))], installed=False)
    prepared = prepare({**TINY, "predictions": "read"}, out=tmp_path / "out", registry=registry, run_options=INLINE)
    factor.write_text("2")
    assert run(prepared).code == 1
    assert "prediction 'mine/read' gives other numbers than when the stage was planned" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("self.k**2 * tables.snr", "self.k * tables.snr", r"its divisor is not \(answer's error / x0-error\)\^2"),
        ("self.k**2 * tables.snr", "tables.snr + 1", "its divisor is not"),
        ("return self.k * eps", "return -self.k * eps", "x0hat of its own target is not x0"),
        ("(out / self.k)", "(out * self.k)", "x0hat of its own target is not x0"),
        ("(out / self.k)", "(out**2 / self.k)", "x0hat of its own target is not x0"),
        ("return self.k * eps", "return self.k * eps[:1]", r"target gives shape \(1, 1, 2, 2\), not"),
        ("self.k**2 * tables.snr", "0 * tables.snr", "gives a divisor of 0 at step 0"),
        ("self.k**2 * tables.snr", "tables.snr[1:]", r"gives divisors of shape \(39,\)"),
        ('"times-prediction needs signal"', "7", "failed|impossible"),
    ],
)
def test_a_prediction_that_contradicts_itself_is_refused_before_anything_runs(
    tmp_path: Path, right: str, wrong: str, told: str
) -> None:
    assert PLUGIN.count(right) == 1
    plugin = write(tmp_path, PLUGIN.replace(right, wrong))
    schedule = "jsd" if wrong == "7" else "linear"
    with pytest.raises(DdpmkitError, match=f"prediction 'times'.*({told})"):
        plan([plugin], predictions="times:k=3", schedules=schedule, metrics="fd")


def test_edm_s_prediction_is_v_of_the_other_sign_for_unit_data(tmp_path: Path) -> None:
    import torch

    from ddpmkit.diffusion.gaussian import Coefficients, q_sample
    from ddpmkit.diffusion.tables_for import tables_for
    from ddpmkit.likelihood.probability_flow import from_network

    registry = Registry([write(tmp_path, PLUGIN)], installed=False)
    f, v = registry.build("prediction", "f:s=1"), registry.build("prediction", "v")
    tables = tables_for(registry.build("schedule", "cosine"), 50)
    t = torch.arange(0, 50, 7)
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(len(t), 1, 2, 2, generator=generator) for _ in range(2))
    c = Coefficients.of(tables)
    at, xt = c.at(t, x0), q_sample(c, x0, t, eps)
    torch.testing.assert_close(f.target(at, x0, eps, xt), -v.target(at, x0, eps, xt), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(f.x0hat(at, xt, -eps), v.x0hat(at, xt, eps), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(contract.declared_divisor(f, tables), contract.declared_divisor(v, tables), rtol=1e-9)
    between = torch.linspace(0, 49, len(t), dtype=torch.float64)  # and so between the steps
    flows = [from_network(lambda x, t, k=k: k * 0.3 * x, tables, p)(xt, between) for p, k in ((f, -1), (v, 1))]
    torch.testing.assert_close(flows[0], flows[1], rtol=1e-5, atol=1e-5)
