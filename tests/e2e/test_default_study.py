"""The study of the README, one seed and the quick preset: it trains, draws recognisable digits, is not redone."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.svm import SVC

CELLS = ("linear", "cosine", "sigmoid")
SHORTER = ("--train-seeds", "0", "--preset", "quick")  # enough for everything that is looked at here

pytestmark = pytest.mark.slow


def ablate(out):
    """Run the command; return what came of it, and the processor time it took, its workers' included."""
    command = [sys.executable, "-m", "ddpmkit", "ablate", "--schedules", ",".join(CELLS), *SHORTER]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ran, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    ran, seconds = ablate(out)
    assert ran.returncode == 0, ran.stderr
    (folder,) = (out / "studies").iterdir()
    return out, folder, ran, seconds


def samples(out, folder):
    plan = json.loads((folder / "plan.json").read_text())
    for r in plan["results"]:
        blob = (out / "store" / "sample" / r["sample"][:2] / r["sample"] / "out" / "samples.safetensors").read_bytes()
        yield r["cell"], load(blob)["levels"].reshape(-1, 64).astype(float)


def spread(images):
    """Mean distance between two different images."""
    distances = np.sqrt(((images[:, None] - images[None]) ** 2).sum(-1))
    return distances[np.triu_indices(len(images), 1)].mean()


def test_a_foreign_classifier_recognises_the_samples_of_every_cell(study):
    out, folder, _, _ = study
    pixels, labels = load_digits(return_X_y=True)
    judge = CalibratedClassifierCV(SVC(gamma=0.001), ensemble=False).fit(pixels, labels)
    seen = []
    for cell, drawn in samples(out, folder):
        sure = judge.predict_proba(drawn)
        classes = sure.argmax(1)
        assert (sure.max(1) >= 0.8).mean() >= 0.6, cell
        assert set(classes) == set(range(10)), cell
        for digit in range(10):
            assert spread(drawn[classes == digit][:60]) >= 0.5 * spread(pixels[labels == digit][:60]), (cell, digit)
        seen.append(cell)
    assert tuple(seen) == CELLS


def test_one_tidy_row_for_each_cell_seed_and_metric(study):
    _, folder, _, _ = study
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    keys = [(r["cell"], r["train_seed"], r["sample_seed"], r["metric"]) for r in rows]
    distances = {f"FD-{x}{kind}" for x in ("digits", "pca16") for kind in ("", "-debiased")}
    assert {r["metric"] for r in rows} == {*distances, "copy", "NLL", "NLL-unclipped", "NLL-train"}
    assert len(keys) == len(set(keys)) == len(CELLS) * 8
    assert all(r["status"] == "done" and float(r["value"]) > 0 for r in rows)
    # Better than knowing nothing, and above the entropy of anything real.
    assert all(1 < float(r["value"]) < 4.0875 for r in rows if r["metric"] == "NLL")


def test_a_sample_grid_for_each_cell(study):
    _, folder, _, _ = study
    for cell in CELLS:
        (path,) = (folder / "figures").glob(f"samples-{cell}-*.png")
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 30


def test_the_table_names_every_cell_and_what_to_hold_it_against(study):
    _, _, ran, _ = study
    for word in (*CELLS, "FD-digits", "FD-pca16", "NLL", "real, train", "per-pixel categorical", "uniform"):
        assert word in ran.stdout


def test_the_same_command_again_trains_nothing(study):
    out, _, first, seconds = study
    before = {p: p.stat().st_mtime_ns for p in (out / "store").rglob("COMMIT.json")}
    again, more = ablate(out)
    assert again.returncode == 0
    assert again.stdout == first.stdout
    assert {p: p.stat().st_mtime_ns for p in (out / "store").rglob("COMMIT.json")} == before
    assert more < seconds / 3  # start-up and a report
