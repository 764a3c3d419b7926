"""What a study trained is used: loaded by name, sampled as the study sampled, bounded as the study bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddpmkit
from ddpmkit import files
from ddpmkit.cli import main
from ddpmkit.cli.images import write_images
from ddpmkit.distances.images import read_images
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.cells import split_name
from ddpmkit.study.loaded import Drawn
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.records import NllRecord
from ddpmkit.study.runner import run
from ddpmkit.study.store import Store

TINY = {
    "train_steps": 6, "samples": 5, "sampling_steps": 3, "nll_evals": 16, "timesteps": 40, "eval_batch": 4,
    "batch_size": 8, "backbones": "unet:channels=4:mults=1", "features": "pca:k=2", "train_seeds": "3",
    "sample_seeds": "0,2", "warmup": 1, "ema": 0.5, "learning_rate": 2e-2, "metrics": "fd,nll", "name": "mine",
}  # fmt: skip


def made(out: Path, **options) -> Path:
    """Run a tiny study."""
    registry = Registry(installed=False)
    run(prepare({**TINY, **options}, out=out, registry=registry, run_options=RunOptions(1, "cpu", "inline")))
    return out


@pytest.fixture(scope="module")
def out(tmp_path_factory, few_digits) -> Path:
    folder = tmp_path_factory.mktemp("loaded")
    made(folder, dataset=few_digits, sigmas="beta-tilde,analytic,learned-range", weightings="hybrid,simple")
    return made(folder, dataset=few_digits, metrics="nll", name="bounds", train_seeds="0", decoder_variance="fitted")


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Path:
    """A study with labels, three classes."""
    folder = tmp_path_factory.mktemp("told")
    rng = np.random.default_rng(0)
    arrays = {f"{s}_images": rng.integers(0, 17, (n, 8, 8), dtype=np.uint8) for s, n in (("train", 60), ("test", 20))}
    labels = {f"{s}_labels": np.arange(n) % 3 for s, n in (("train", 60), ("test", 20))}
    np.savez(folder / "told.npz", **arrays, **labels)
    data = f"npz:path={folder / 'told.npz'}:levels=17:validation=20"
    return made(folder, dataset=data, conditional=True, guidances="0,1.5,-1", train_seeds="0", sample_seeds="0")


def stored(out: Path, study: str = "mine"):
    """Every result of a study with its samples and its bound, as the store has them."""
    plan, store = files.read_sealed(out / "studies" / study / "plan.json"), Store(out)
    for r in plan["results"]:
        arrays = store.arrays("sample", r["sample"], "samples") if r["sample"] else None
        yield r, arrays, store.record(NllRecord, r["nll"])


@pytest.mark.long
def test_samples_and_bounds_are_those_of_the_study_bit_for_bit(out: Path) -> None:
    seen = set()
    for r, arrays, bound in stored(out):
        loaded = ddpmkit.load("mine", r["cell"], r["train_seed"], out=out, device="cpu")
        np.testing.assert_array_equal(loaded.sample(5, seed=r["sample_seed"]), arrays["levels"])
        if r["cell"] not in seen:  # more and fewer are the same ones; a bound needs no samples
            more = loaded.sample(11, seed=r["sample_seed"])
            np.testing.assert_array_equal(more[:5], arrays["levels"])
            np.testing.assert_array_equal(more[:2], loaded.sample(2, seed=r["sample_seed"]))
            found = loaded.bits_per_dim(loaded.images.test)
            assert (found.total, found.standard_error) == (bound.clipped.total, bound.clipped.standard_error)
        seen.add(r["cell"])
    assert seen == {"beta-tilde simple", "analytic simple", "learned-range hybrid"}  # the others are impossible


@pytest.mark.long
def test_samples_with_labels_are_those_of_the_study_bit_for_bit(told: Path) -> None:
    for r, arrays, bound in stored(told):
        loaded = ddpmkit.load("mine", r["cell"], out=told, device="cpu")
        drawn = loaded.draw(5)
        np.testing.assert_array_equal(drawn.images, arrays["levels"])
        if r["cell"] == "guidance=-1.0":
            assert drawn.labels is None
            assert loaded.draw(3, guidance=0).labels is not None
            with pytest.raises(DdpmkitError, match="told no labels"):
                loaded.draw(3, labels="balanced")
            continue
        np.testing.assert_array_equal(drawn.labels, arrays["labels"])
        found = loaded.bits_per_dim(loaded.images.test, loaded.images.labels["test"])
        assert found.total == bound.clipped.total
        assert loaded.draw(7, labels=[2, 0]).labels.tolist() == [2, 0, 2, 0, 2, 0, 2]
        assert loaded.draw(4, labels="balanced").labels.tolist() == [0, 1, 2, 0]
        for wrong, said in (([0, 3], "no class 3"), ([], "no class given"), ("all", "can't be 'all'")):
            with pytest.raises(DdpmkitError, match=said):
                loaded.draw(1, labels=wrong)
    other = ddpmkit.load("mine", "guidance=0.0", out=told, device="cpu")
    guided = ddpmkit.load("mine", "guidance=1.5", out=told, device="cpu")
    np.testing.assert_array_equal(other.sample(4, guidance=1.5), guided.sample(4))
    for labels, said in ((None, "trained with labels"), ([0, 1], "for 20 images"), ([3] * 20, "no class 3")):
        with pytest.raises(DdpmkitError, match=said):
            other.bits_per_dim(other.images.test, labels)


def test_what_is_loaded_is_the_network_with_its_meaning(out: Path) -> None:
    loaded = ddpmkit.load(out / "studies" / "bounds", device="cpu")
    assert (loaded.cell.study, loaded.cell.label, loaded.cell.train_seed) == ("bounds", "linear", 0)
    assert loaded.schedule == ddpmkit.build("schedule", "linear")
    assert loaded.tables.T == 40
    assert isinstance(loaded.network, torch.nn.Module)
    assert not loaded.network.training
    xt, t = torch.zeros(2, 1, 8, 8), torch.tensor([0, 39])
    x0_hat, log_sigma2 = loaded.predict(xt, t)
    assert x0_hat.shape == xt.shape
    assert log_sigma2 is None
    # A study without samples has a walk all the same: its settings say which.
    assert loaded.sample(3).shape == (3, 1, 8, 8)
    bound = next(b for _, _, b in stored(out, "bounds"))
    assert loaded.bits_per_dim(loaded.images.test).total == bound.clipped.total
    assert loaded.bits_per_dim(loaded.images.test[:4], evals=16, seed=1).total != bound.clipped.total


def test_another_sampler_or_number_of_steps_is_the_same_network(out: Path) -> None:
    loaded = ddpmkit.load("bounds", out=out, device="cpu")
    assert not np.array_equal(loaded.sample(4), loaded.sample(4, sampler="ddim"))
    np.testing.assert_array_equal(loaded.sample(4), loaded.sample(4, sampler="ancestral", steps=3))
    assert loaded.draw(4, steps=7).evaluations == 28
    assert loaded.walk.times == tuple(loaded.sampler.timesteps(40, 3))


def test_what_can_not_be_done_is_said(out: Path, tmp_path: Path) -> None:
    with pytest.raises(DdpmkitError, match="has 3 cells") as found:
        ddpmkit.load("mine", out=out)
    assert "mine/" in found.value.hint
    with pytest.raises(DdpmkitError, match="has no cell 'linar'; did you mean 'linear'"):
        ddpmkit.load("bounds", "linar", out=out)
    with pytest.raises(DdpmkitError, match="has no train seed 7") as found:
        ddpmkit.load("bounds", "linear", 7, out=out)
    assert found.value.hint == "its train seeds: 0"
    with pytest.raises(DdpmkitError, match="there is no study 'yours'"):
        ddpmkit.load("yours", out=out)
    loaded = ddpmkit.load("bounds", out=out, device="cpu")
    for how, said in (({"labels": 1}, "without"), ({"guidance": 1.0}, "without"), ({"sampler": "dim"}, "unknown")):
        with pytest.raises(DdpmkitError, match=said):
            loaded.draw(1, **how)
    with pytest.raises(DdpmkitError, match="can't be drawn"):
        loaded.sample(0)
    with pytest.raises(DdpmkitError, match="images of shape"):
        loaded.bits_per_dim(np.zeros((2, 1, 4, 4), np.uint8))


def test_a_cell_is_found_by_label_and_by_slug_and_a_study_by_name_and_by_path(out: Path, monkeypatch) -> None:
    (cell,) = files.read_sealed(out / "studies" / "bounds" / "plan.json")["cells"]
    by_slug = ddpmkit.load("bounds", cell["slug"], out=out, device="cpu")
    assert by_slug.cell.label == cell["label"]
    assert split_name("bounds/linear", out) == ("bounds", "linear")
    assert split_name("bounds", out) == ("bounds", None)
    assert split_name("mine/backbone=unet:mults=1/2 sigma", out) == ("mine", "backbone=unet:mults=1/2 sigma")
    path = str(out / "studies" / "bounds")
    assert split_name(f"{path}/linear", out) == (path, "linear")
    assert split_name("no/such", out) == ("no", "such")
    assert split_name("/no/such", out) == ("/no/such", None)
    assert ddpmkit.load(f"bounds/{cell['slug']}", out=out, device="cpu").cell.label == cell["label"]
    with pytest.raises(DdpmkitError, match="there is no study '/no/such'"):
        ddpmkit.load("/no/such", out=out)


def test_the_command_writes_what_the_ending_says(out: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["sample", "bounds/linear", "--out", str(out), "--device", "cpu"]
    assert main([*common, "--count", "5", "--to", "x.npz", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["study"], told["cell"], told["count"], told["levels"], told["evaluations"]) == (
        "bounds", "linear", 5, 17, 15,
    )  # fmt: skip
    want = ddpmkit.load("bounds", out=out, device="cpu").sample(5)
    with np.load("x.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["images"], want)
        assert int(arrays["n_levels"]) == 17
    assert main([*common, "--count", "5", "--to", "x.safetensors"]) == 0
    assert main([*common, "--count", "5", "--to", "pictures"]) == 0
    assert main([*common, "--count", "5"]) == 0
    assert sorted(p.name for p in Path("pictures").iterdir()) == [f"{i:05d}.png" for i in range(5)]
    # What ``evaluate`` reads back of any of them is what was drawn.
    for place in ("x.npz", "x.safetensors", "pictures"):
        np.testing.assert_array_equal(read_images(Path(place), 17, channels=1), want)
    with Image.open("samples.png") as grid:
        assert grid.size == (26 * 18, 17 * 18)  # three across, two down, lines between, enlarged
    capsys.readouterr()
    assert main([*common, "--to", "pictures"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main([*common, "--to", "x.gif"]) == 2
    assert "--to grid.png" in capsys.readouterr().err
    assert main([*common, "--labels", "a,b"]) == 2
    assert "--labels 0,3" in capsys.readouterr().err


def test_images_with_labels_keep_them(tmp_path: Path) -> None:
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 2, 2)
    drawn = Drawn(images, 256, np.array([7, 1]), 0)
    write_images(drawn, tmp_path / "x.npz")
    write_images(drawn, tmp_path / "folder")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert arrays["labels"].tolist() == [7, 1]
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["00000-class7.png", "00001-class1.png"]
    np.testing.assert_array_equal(read_images(tmp_path / "folder", 256), images)
    with pytest.raises(DdpmkitError, match="2 channels"):
        write_images(Drawn(images[:, :2], 256, None, 0), tmp_path / "two")


def test_importing_ddpmkit_and_asking_for_help_load_no_torch() -> None:
    code = (
        "import sys, ddpmkit\nassert 'load' in dir(ddpmkit)\nassert not {'torch', 'numpy'} & set(sys.modules)\n"
        "from ddpmkit.cli import main\nassert main(['sample', '--help']) == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, timeout=120)
