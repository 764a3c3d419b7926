"""Studies of the choices that need more than one network pass or more than one output, small and whole."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import ddpmkit
from ddpmkit.cli import main
from ddpmkit.distances import two_sample
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.store import Store

TINY = {
    "train_steps": 8, "samples": 12, "sampling_steps": 3, "nll_evals": 64, "timesteps": 50, "eval_batch": 64,
    "batch_size": 8, "backbones": "unet:channels=4:mults=1:middle_attention=false", "features": "pca:k=4",
    "train_seeds": "0",
}  # fmt: skip
FIXED = {
    "sigmas": "beta,beta-tilde,analytic,optimal", "samplers": "ancestral,ddim", "axis": ["ema=0.1,0.9"],
    "timestep_sampling": "importance",
}  # fmt: skip


@pytest.fixture(scope="module")
def registry():
    return Registry(installed=False)


def study(out, registry, **options):
    prepared = prepare({**TINY, **options}, out=out, registry=registry, run_options=RunOptions(1, "cpu", "inline"))
    outcome = run(prepared)
    return prepared, outcome


@pytest.fixture(scope="module")
def everything(tmp_path_factory, registry, few_digits):
    """Fitted, learned and fixed sigmas, two walks, two averages, importance sampling: one store."""
    out = tmp_path_factory.mktemp("everything")

    def made(name, **options):
        return study(out, registry, name=name, dataset=few_digits, **options)

    found = {
        "fixed": made("fixed", **FIXED),
        "learned": made("learned", sigmas="learned-range,learned", weightings="hybrid,vlb"),
        "fitted": made("fitted", axis=["decoder_variance=tilde2,beta1,fitted"]),
    }
    assert all(outcome.code == 0 for _, outcome in found.values())
    return out, found


def bounds(out, prepared, split="nll"):
    """cell -> the record of its bound."""
    return {r.cell: Store(out).result("nll", getattr(r, split)) for r in prepared.plan.results}


@pytest.mark.long
def test_every_choice_ends_with_finite_numbers(everything):
    out, found = everything
    for prepared, _ in found.values():
        for split in ("nll", "nll_train"):
            for cell, record in bounds(out, prepared, split).items():
                for kind in ("clipped", "unclipped"):
                    assert np.isfinite([record[kind][k] for k in ("total", "standard_error", "middle")]).all(), cell
                assert record["split"] == ("test" if split == "nll" else "train")


@pytest.mark.long
def test_fixed_and_fitted_sigmas_of_one_network_are_bounds_from_the_same_draws(everything):
    out, found = everything
    prepared = found["fixed"][0]
    draws = {s.id for s in prepared.plan.stages.values() if s.kind == "draw"}
    assert len(draws) == 2 * 2  # two averages, two splits
    records = bounds(out, prepared)
    assert len(records) == 16
    assert len({r["evaluations"] for r in records.values()}) == 1
    # The optimal variance is at least as good as either bound on the images it was not fitted to, to the noise.
    for rate in ("0.1", "0.9"):
        best = records[f"optimal ancestral ema={rate}"]["clipped"]["total"]
        for other in ("beta", "beta-tilde", "analytic"):
            assert best < records[f"{other} ancestral ema={rate}"]["clipped"]["total"] + 0.02
    # The walk changes no likelihood.
    assert records["beta ddim ema=0.1"] == records["beta ancestral ema=0.1"]
    assert records["beta ddim ema=0.1"] != records["beta ddim ema=0.9"]


@pytest.mark.long
def test_a_learned_sigma_gives_the_decoder_its_variance(everything):
    out, found = everything
    assert {r["decoder_variance"] for r in bounds(out, found["learned"][0]).values()} == {"learned"}
    named = {c.split("=")[-1]: r for c, r in bounds(out, found["fitted"][0]).items()}
    assert {k: r["decoder_variance"] for k, r in named.items()} == {
        "tilde2": "tilde2",
        "beta1": "beta1",
        "fitted": "fitted",
    }
    # Fitted to training images, it is the best of the three on others too.
    decoder = {k: r["clipped"]["decoder"] for k, r in named.items()}
    assert decoder["fitted"] <= min(decoder["tilde2"], decoder["beta1"]) + 1e-3
    middle = {r["clipped"]["middle"] for r in named.values()}
    assert len(middle) == 1


@pytest.mark.long
def test_a_fit_and_a_draw_stopped_on_their_way_give_the_same_bytes(everything, registry, few_digits, tmp_path):
    out, _ = everything
    shutil.copytree(out / "store" / "train", tmp_path / "store" / "train")
    shutil.copy(out / "store" / "FORMAT", tmp_path / "store" / "FORMAT")
    again, outcome = study(tmp_path, registry, name="fixed", dataset=few_digits, **FIXED)
    assert outcome.code == 0
    for stage in again.plan.stages.values():
        for name in ("result.json", "statistics.safetensors", "draws.safetensors", "samples.safetensors"):
            a, b = (Store(o).folder(stage.kind, stage.id) / "out" / name for o in (out, tmp_path))
            assert a.exists() == b.exists()
            if a.exists() and stage.kind != "train":
                assert a.read_bytes() == b.read_bytes(), (stage.label, name)


SHORT = {"schedules": "cosine", "timesteps": 12}  # so that a full sweep is soon done


@pytest.mark.long
def test_a_full_sweep_and_a_target_error_are_studies_too(everything, registry):
    out, short = everything[0], {**SHORT, "sigmas": "beta,beta-tilde"}
    swept, one = study(out, registry, name="swept", nll_full=True, **short)
    sampled, two = study(out, registry, name="sampled", nll_se=0.1, **short)
    assert (one.code, two.code) == (0, 0)
    a, b = bounds(out, swept), bounds(out, sampled)
    for cell in ("beta", "beta-tilde"):
        assert a[cell]["evaluations"] == a[cell]["images"] * 11 + 2 * a[cell]["images"]
        assert b[cell]["clipped"]["standard_error"] < 0.13
        error = np.hypot(a[cell]["clipped"]["standard_error"], b[cell]["clipped"]["standard_error"])
        assert a[cell]["clipped"]["total"] == pytest.approx(b[cell]["clipped"]["total"], abs=5 * error)


@pytest.mark.long
def test_the_panel_of_a_study_has_a_column_a_metric_and_pixels_are_looked_at_once(few_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(two_sample, "TREES", 5)
    metrics = "fd,kid,precision,recall,density,coverage,sw,c2st,copy"
    out = ddpmkit.ablate(
        **{**TINY, "features": "pca:k=4,pixels", "metrics": metrics, "dataset": few_digits}, out=tmp_path,
        executor="inline", on_event=lambda _: None,
    )  # fmt: skip
    frame = out.results()
    per = ["FD", "KID", "SW", "coverage", "density", "precision", "recall"]
    assert set(frame["metric"]) - {"FD-pca4-debiased"} == {
        *(f"{m}-pca4" for m in per), *(f"{m}-pixels" for m in per), "c2st", "copy",
    }  # fmt: skip
    assert frame["value"].notna().all()
    # Whatever makes two numbers unlike is in what is said of them, so that no two data sets share a column.
    assert frame["definition"].str.contains("data=[0-9a-f]{8} K=17").all()
    debiased = frame[frame["metric"] == "FD-pca4-debiased"].iloc[0]
    plain = frame[frame["metric"] == "FD-pca4"].iloc[0]
    assert debiased["value"] < plain["value"]
    assert debiased["standard_error"] > 0
    assert np.isnan(plain["standard_error"])  # the error is that of the debiased value
    text = (out.folder / "report.md").read_text()
    assert "Copy check, 1 is clean" in text
    assert "likely copies" not in text
    assert {"forward.png", "reverse.png"} <= {p.name for p in (out.folder / "figures").iterdir()}


@pytest.mark.long
def test_the_reference_can_be_the_training_split(registry, tmp_path):
    prepared, _ = study(tmp_path, registry, metrics="fd", axis=["reference_split=test,train"])
    refs = [Store(tmp_path).result("ref", s.id) for s in prepared.plan.stages.values() if s.kind == "ref"]
    assert {r["split"]: r["n_reference"] for r in refs} == {"test": 797, "train": 900}


# --- likelihood ---------------------------------------------------------------------------------------------------


def training(everything, name="fixed"):
    prepared = everything[1][name][0]
    return next(s.id for s in prepared.plan.stages.values() if s.kind == "train")


def likelihood(capsys, *args):
    code = main(["likelihood", *args])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.long
def test_likelihood_bounds_one_training_as_its_study_does(everything, capsys):
    out = everything[0]
    code, printed, _ = likelihood(
        capsys,
        training(everything)[:10],
        "--out",
        str(out),
        "--sigma",
        "beta",
        "--nll-evals",
        "64",
        "--ema",
        "0.1",
        "--json",
    )
    found = json.loads(printed)
    assert code == 0
    expected = bounds(out, everything[1]["fixed"][0])["beta ancestral ema=0.1"]["clipped"]
    error = np.hypot(found["clipped"]["standard_error"], expected["standard_error"])
    assert found["clipped"]["total"] == pytest.approx(expected["total"], abs=6 * error)
    assert found["steps"] == found["T"] == 50
    assert found["evaluations"] < found["full_sweep"]


@pytest.mark.long
def test_likelihood_takes_fewer_steps_and_other_decoders(everything, capsys):
    out, train = str(everything[0]), training(everything)[:12]
    base, bits = (train, "--out", out, "--nll-evals", "64", "--ema", "0.9"), {}
    for args in (("--steps", "10"), ("--decoder", "cdf-tanh"), ("--decoder-variance", "beta1"), ("--split", "train")):
        code, printed, _ = likelihood(capsys, *base, "--json", *args)
        assert code == 0
        bits[args] = json.loads(printed)
    assert bits["--steps", "10"]["steps"] == 10
    assert len({b["clipped"]["total"] for b in bits.values()}) == 4
    code, printed, said = likelihood(capsys, *base, "--steps", "10")
    rows = [line.split("\t") for line in printed.splitlines()]
    assert [r[0] for r in rows] == ["x0hat", "clipped", "unclipped"]
    assert "10 of 50 steps" in said


@pytest.mark.long
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["zz"], "no training in the store begins with 'zz'"),
        ([""], "no training in the store begins with ''"),
        (["TRAIN", "--sigma", "learned-range"], "was not trained with sigma 'learned-range'"),
        (["TRAIN", "--sigma", "analytic"], "sigma 'analytic' is fitted in a study"),
        (["TRAIN", "--decoder", "cfd"], "--decoder can't be 'cfd'"),
        (["TRAIN", "--nll-se", "0.1", "--nll-full"], "two ways of saying how much"),
        (["TRAIN"], "this training kept several averages: 0.1, 0.9"),
        (["TRAIN", "--ema", "0.5"], "the average of rate 0.5 was not kept"),
        (
            ["LEARNED", "--sigma", "learned-range", "--decoder-variance", "beta1"],
            "gives the decoder its variance too",
        ),
        (["TRAIN", "--ema", "0.9", "--steps", "51"], "51 sampling steps of a chain with T=50"),
        (["TRAIN", "--samples", "x"], "No such option: --samples"),
        (["LEARNED", "--sigma", "beta"], "this network learned its own variance"),
        ([], "Missing argument 'training'"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else "",
)
def test_a_bad_request_to_bound_a_training_is_two_lines(everything, capsys, args, message):
    known = {"TRAIN": training(everything)[:12], "LEARNED": training(everything, "learned")[:12]}
    code, printed, said = likelihood(capsys, *(known.get(a, a) for a in args), "--out", str(everything[0]))
    assert (code, printed) == (2, "")
    assert message in said
    assert len(said.splitlines()) == 2


@pytest.mark.long
def test_a_training_is_named_by_what_it_sees(everything):
    prepared = everything[1]["fixed"][0]
    labels = [s.label for s in prepared.plan.stages.values() if s.kind == "train"]
    assert labels == ["train linear seed 0"]
    learned = [s.label for s in everything[1]["learned"][0].plan.stages.values() if s.kind == "train"]
    assert "train learned-range hybrid seed 0" in learned


@pytest.mark.long
def test_a_training_keeps_its_schedule_for_the_report(everything):
    chain = Store(everything[0]).result("train", training(everything))["chain"]
    betas = ddpmkit.build("schedule", "linear").betas(50)
    alpha_bars = np.cumprod(1 - betas)
    np.testing.assert_allclose(chain["alpha_bars"], alpha_bars[np.asarray(chain["t"]) - 1], rtol=1e-9)
    np.testing.assert_allclose(
        chain["log_snr"], np.log(alpha_bars / (1 - alpha_bars))[np.asarray(chain["t"]) - 1], rtol=1e-9
    )


# --- confirmation -------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_confirm_runs_two_cells_on_fresh_seeds_and_tells_them_apart_from_the_study(
    few_digits, no_pictures, tmp_path, capsys
):
    args = [
        "ablate", "--schedules", "linear,cosine,sigmoid", "--name", "demo", "--metrics", "nll", "--train-seeds", "0,1",
        "--out", str(tmp_path), "--executor", "inline", "--device", "cpu", "--confirm", "2", "--dataset", few_digits,
    ]  # fmt: skip
    for key, value in TINY.items():
        if key != "train_seeds":
            flag = {"nll_evals": "--nll-evals", "eval_batch": None}.get(key, f"--{key.replace('_', '-')}")
            args += [flag, str(value)] if flag else ["--axis", f"eval_batch={value}"]
    assert main(args) == 0
    printed, said = capsys.readouterr()
    (confirmation,) = (tmp_path / "studies").glob("demo-confirm-*")
    plan = json.loads((confirmation / "plan.json").read_text())
    assert len(plan["cells"]) == 2
    assert "linear" in {c["label"] for c in plan["cells"]}
    assert {r["train_seed"] for r in plan["results"]} == {2, 3}
    assert "study\t2\t" in printed
    assert "fresh seeds\t2\t" in printed
    assert "a selection, which flatters the winner" in said
    assert "onfirmed." in said
    # The file of the confirmation asks for the same two cells again.
    toml = confirmation / "study.toml"
    assert main(["ablate", str(toml), "--out", str(tmp_path), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["cells"]) == 2
    assert all(s["to_run"] == 0 for s in found["stages"].values())


def test_only_names_cells_of_the_grid(registry, tmp_path):
    prepared = prepare(
        {**TINY, "schedules": "linear,cosine", "sigmas": "beta,beta-tilde", "only": ["cosine beta"]},
        out=tmp_path, registry=registry, run_options=RunOptions(1, "cpu", "inline"),
    )  # fmt: skip
    assert [c.label for c in prepared.plan.cells] == ["cosine beta"]
    with pytest.raises(ddpmkit.DdpmkitError, match="the grid has no cell 'cosin beta'; did you mean 'cosine beta'"):
        prepare({**TINY, "schedules": "linear,cosine", "sigmas": "beta,beta-tilde", "only": "cosin beta"}, out=tmp_path)


@pytest.mark.long
def test_likelihood_tells_the_flow_s_likelihood_apart_from_the_bound(registry, tmp_path, capsys):
    """Images of 2x2 grey pixels: the exact divergence takes a gradient a pixel."""
    levels = np.random.default_rng(0).integers(0, 256, (60, 2, 2, 1), dtype=np.uint8)
    path = tmp_path / "tiny.npz"
    np.savez(path, train_images=levels, test_images=levels[:20])
    prepared, outcome = study(
        tmp_path, registry, dataset=f"npz:path={path}:validation=20", metrics="nll", features="pixels",
        weightings="hybrid", sigmas="learned-range", timesteps=24,
    )  # fmt: skip
    assert outcome.code == 0
    train = next(s.id for s in prepared.plan.stages.values() if s.kind == "train")
    capsys.readouterr()
    code, printed, said = likelihood(
        capsys, train, "--out", str(tmp_path), "--sigma", "learned-range", "--ode", "1", "--nll-evals", "16",
        "--json",
    )  # fmt: skip
    assert (code, said) == (0, "")
    found = json.loads(printed)
    assert found["probability_flow"]["divergence"] == "exact"
    assert found["probability_flow"]["images"] == 1
    assert np.isfinite(found["probability_flow"]["total"])
    assert found["clipped"]["total"] != found["probability_flow"]["total"]


# --- declarations that must be true -------------------------------------------------------------------------------


LIES = """
from dataclasses import dataclass
import numpy as np
from ddpmkit import Sampler, Weighting, hookimpl

@dataclass(frozen=True)
class Hidden(Weighting):
    name = "hidden"
    def weights(self, tables, log_sigma2):
        return tables.posterior_x0**2 / (2 * np.exp(log_sigma2))

@dataclass(frozen=True)
class First(Weighting):
    name = "first"
    decoder_first = True
    def weights(self, tables, log_sigma2):
        return tables.snr

@dataclass(frozen=True)
class Elsewhere(Weighting):
    name = "elsewhere"
    space = "eps"
    def weights(self, tables, log_sigma2):
        return tables.snr

@dataclass(frozen=True)
class Truncated(Weighting):
    name = "truncated"
    uses_sigma = is_bound = decoder_first = True
    def weights(self, tables, log_sigma2):
        return np.minimum(tables.posterior_x0**2 / (2 * np.exp(log_sigma2)), 1.0)

@dataclass(frozen=True)
class Silent(Sampler):
    name = "silent"
    uses_sigma = False
    def timesteps(self, T, count):
        return list(range(T - count, T))
    def sample(self, denoise, tables, noise):
        return denoise(noise(0), tables.T - 1).x0

@hookimpl
def ddpmkit_register_weightings():
    return [Hidden, First, Elsewhere, Truncated]

@hookimpl
def ddpmkit_register_samplers():
    return [Silent]
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weightings": "hidden"}, "weighting 'hidden' depends on sigma and does not say uses_sigma"),
        ({"weightings": "first"}, "weighting 'first' depends on sigma and does not say uses_sigma"),
        ({"weightings": "elsewhere"}, "weighting 'elsewhere': space is 'x0' or 'prediction', not 'eps'"),
        (
            {"weightings": "truncated", "sigmas": "learned"},
            "'truncated' says it is the bound and weighs its steps otherwise",
        ),
        ({"samplers": "silent"}, "sampler 'silent' says uses_sigma = False and has no kernel"),
    ],
    ids=lambda v: next(iter(v.values())) if isinstance(v, dict) else "",
)
def test_a_component_that_hides_what_it_depends_on_is_refused_before_anything_runs(tmp_path, options, message):
    """Otherwise two cells would share a network that one of them does not describe."""
    path = tmp_path / "lies.py"
    path.write_text(LIES)
    with pytest.raises(ddpmkit.DdpmkitError, match=message.replace("(", ".").replace(")", ".")):
        prepare({**TINY, **options}, out=tmp_path, registry=Registry([str(path)], installed=False))


def test_nobody_fits_what_nobody_reads(registry, tmp_path):
    for options in (
        {"axis": ["decoder_variance=fitted"], "metrics": "fd"},
        {"sigmas": "analytic", "samplers": "dpm-solver++", "metrics": "fd"},
    ):
        prepared = prepare({**TINY, **options}, out=tmp_path, registry=registry)
        assert not any(s.kind == "fit" for s in prepared.plan.stages.values())
    both = prepare({**TINY, "sigmas": "analytic,beta", "samplers": "dpm-solver++"}, out=tmp_path, registry=registry)
    assert len({r.sample for r in both.plan.results}) == 1
