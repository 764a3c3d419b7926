"""The tidy table, read from records that this file writes by hand: no run, no plan maker, no torch."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddpmkit import load_results
from ddpmkit.errors import DdpmkitError
from ddpmkit.report.read.frames import AXES, COLUMNS, read_study
from ddpmkit.report.show.csv import to_tidy

SETTINGS = {
    "dataset": "digits",
    "schedule": "linear",
    "sigma": "beta-tilde",
    "weighting": "simple",
    "backbone": "unet",
    "sampler": "ancestral",
    "timesteps": 1000,
    "sampling_steps": 50,
    "prediction": "eps",
}
FINGERPRINT = {"torch": "2.13.0+cpu", "device_name": "AMD EPYC", "threads": 1}
METRICS = ("FD-digits", "FD-pca16", "NLL", "NLL-unclipped")
KEY = ["cell", "train_seed", "sample_seed", "metric"]


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Folder:
    """A results folder with one study; every stage is done unless ``ended`` says otherwise for its label."""

    def __init__(
        self, out: Path, *, cells=("linear", "cosine"), seeds=(0, 1, 2), sample_seeds=(0,), ended=None, se=None
    ):
        self.out, self.ended, self.stages = out, ended or {}, {}
        self.study = out / "studies" / "demo"
        results = []
        refs = {
            text: self.stage("ref", f"ref {text}", reference(label))
            for text, label in (("digits", "FD-digits"), ("pca", "FD-pca16"))
        }
        for c, cell in enumerate(cells):
            for s in seeds:
                train = self.stage(
                    "train", f"train {cell} {s}", {"parameters": 1000 + c, "flops": 5_000_000}, seconds=7.0 + s
                )
                nll = self.stage("nll", f"nll {cell} {s}", likelihood(2 + c + 0.1 * s))
                for d in sample_seeds:
                    name = f"{cell} {s}.{d}"
                    sample = self.stage("sample", f"sample {name}", {"count": 64, "evaluations": 3200, "levels": 17})
                    scores = [
                        [
                            text,
                            self.stage(
                                "score",
                                f"score {text} {name}",
                                {"metrics": {"fd": {"value": fd(c, s, d, k), "se": se}}, "n": 64},
                            ),
                            ref,
                        ]
                        for k, (text, ref) in enumerate(refs.items())
                    ]
                    results.append(
                        {"cell": cell, "train_seed": s, "sample_seed": d, "train": train, "sample": sample}
                        | {"scores": scores, "nll": nll}
                    )
        plan = {
            "study": "demo",
            "grid": {"train_seeds": list(seeds), "sample_seeds": list(sample_seeds)},
            "cells": [
                {"label": c, "slug": f"s{i}", "point": {"schedule": c}, "settings": {**SETTINGS, "schedule": c}}
                for i, c in enumerate(cells)
            ],
            "results": results,
            "stages": list(self.stages.values()),
        }
        self.study.mkdir(parents=True)
        (self.study / "plan.json").write_text(json.dumps(plan))

    def stage(self, kind, label, result, seconds=1.5):
        id = sha(label)
        self.stages[id] = {"kind": kind, "id": id, "label": label, "needs": [], "spec": {}, "how": {}, "work": 1}
        state = self.ended.get(label, "done")
        folder = self.out / "store" / kind / id[:2] / id
        if state == "pending":
            return id
        folder.mkdir(parents=True)
        status = {"state": state, "seconds": seconds, "fingerprint": FINGERPRINT, "label": label}
        if state == "done":
            (folder / "out").mkdir()
            (folder / "out" / "result.json").write_text(json.dumps(result))
            digest = hashlib.sha256((folder / "out" / "result.json").read_bytes()).hexdigest()
            commit = {"files": {"result.json": {"sha256": digest}}, "meta": {"stage": id}}
            (folder / "out" / "COMMIT.json").write_text(json.dumps(commit))
        else:
            status["error"] = f"{label} went wrong"
        (folder / "status.json").write_text(json.dumps(status))
        return id


def fd(cell, train_seed, sample_seed, feature):
    return 100.0 * (cell + 1) + 10 * train_seed + sample_seed + 0.5 * feature


def reference(label):
    return {
        "label": label, "floors": {label: 13.8}, "names": {"fd": label},
        "n_floor": 64, "n_reference": 797, "split": "test", "features": sha(label),
        "baselines": {"uniform": 4.087},
    }  # fmt: skip


def likelihood(total):
    bound = {"total": total, "standard_error": 0.01}
    return {
        "clipped": bound, "unclipped": {"total": total + 1, "standard_error": 0.02}, "decoder": "cdf",
        "decoder_variance": "tilde2", "T": 1000, "split": "test", "images": 797, "evaluations": 2000,
    }  # fmt: skip


def test_one_row_per_cell_train_seed_sample_seed_and_metric(tmp_path):
    frame = read_study(Folder(tmp_path, sample_seeds=(0, 1)).study).results
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 2 * 3 * 2 * len(METRICS)
    assert not frame.duplicated(KEY).any()
    assert set(frame["metric"]) == set(METRICS)
    assert (frame["status"] == "done").all()
    assert frame["value"].notna().all()


def test_an_error_of_0_in_a_record_is_none_that_is_known(tmp_path):
    for se in (0.0, 0.5):
        frame = read_study(Folder(tmp_path / str(se), se=se).study).results.set_index(KEY)
        found = frame.loc[("cosine", 2, 0, "FD-pca16")]["standard_error"]
        assert np.isnan(found) if se == 0 else found == se


def test_a_row_holds_the_numbers_of_its_own_stages(tmp_path):
    folder = Folder(tmp_path, sample_seeds=(0, 1))
    frame = read_study(folder.study).results.set_index(KEY)
    row = frame.loc[("cosine", 2, 1, "FD-pca16")]
    assert row["value"] == fd(1, 2, 1, 1)
    assert (row["n"], row["evaluations"], row["parameters"], row["flops"]) == (64, 3200, 1001, 5_000_000)
    assert row["train_seconds"] == 9.0
    assert row["seconds"] == 1.5
    assert row["stage"] == sha("score pca cosine 2.1")[:16]
    assert row["train_stage"] == sha("train cosine 2")[:16]
    nll = frame.loc[("cosine", 2, 1, "NLL")]
    assert (nll["value"], nll["standard_error"], nll["unit"], nll["n"]) == (3.2, 0.01, "bits/dim", 797)
    assert frame.loc[("cosine", 2, 1, "NLL-unclipped")]["value"] == 4.2


def test_a_row_says_what_its_number_is(tmp_path):
    frame = read_study(Folder(tmp_path).study).results.set_index(KEY)
    text = frame.loc[("linear", 0, 0, "FD-digits")]["definition"]
    for part in ("FD-digits", "64/797", "test", sha("FD-digits")[:8]):
        assert part in text
    for part in ("clipped", "decoder=cdf", "variance=tilde2", "T=1000", "split=test"):
        assert part in frame.loc[("linear", 0, 0, "NLL")]["definition"]


def test_every_axis_has_a_column_with_the_cells_setting(tmp_path):
    frame = read_study(Folder(tmp_path).study).results
    for axis in AXES:
        if axis != "schedule":
            assert set(frame[axis]) == {SETTINGS[axis]}
    assert (frame["schedule"] == frame["cell"]).all()


@pytest.mark.parametrize("state", ["failed", "diverged", "interrupted", "blocked", "pending"])
def test_a_training_that_is_not_done_leaves_rows_with_its_state_and_no_value(tmp_path, state):
    downstream = ["nll cosine 1", "sample cosine 1.0", "score digits cosine 1.0", "score pca cosine 1.0"]
    ended = {"train cosine 1": state, **dict.fromkeys(downstream, "pending")}
    frame = read_study(Folder(tmp_path, ended=ended).study).results
    rows = frame[(frame["cell"] == "cosine") & (frame["train_seed"] == 1)]
    assert sorted(rows["metric"]) == sorted(METRICS)
    assert set(rows["status"]) == {state}
    assert rows["value"].isna().all()
    others = frame.drop(rows.index)
    assert (others["status"] == "done").all()
    assert others["value"].notna().all()


def test_a_training_whose_process_is_gone_is_not_told_to_be_running(tmp_path):
    downstream = ["nll cosine 1", "sample cosine 1.0", "score digits cosine 1.0", "score pca cosine 1.0"]
    ended = {"train cosine 1": "running", **dict.fromkeys(downstream, "pending")}
    frame = read_study(Folder(tmp_path, ended=ended).study).results
    rows = frame[(frame["cell"] == "cosine") & (frame["train_seed"] == 1)]
    assert set(rows["status"]) == {"interrupted"}


def test_a_failed_score_touches_no_other_metric(tmp_path):
    frame = read_study(Folder(tmp_path, ended={"score pca linear 0.0": "failed"}).study).results.set_index(KEY)
    assert frame.loc[("linear", 0, 0, "FD-pca16")]["status"] == "failed"
    assert np.isnan(frame.loc[("linear", 0, 0, "FD-pca16")]["value"])
    assert frame.loc[("linear", 0, 0, "FD-digits")]["status"] == "done"
    assert frame.loc[("linear", 0, 0, "NLL")]["status"] == "done"


def test_a_result_without_its_commit_is_not_read(tmp_path):
    folder = Folder(tmp_path)
    id = sha("score digits linear 0.0")
    (tmp_path / "store" / "score" / id[:2] / id / "out" / "COMMIT.json").unlink()
    row = read_study(folder.study).results.set_index(KEY).loc[("linear", 0, 0, "FD-digits")]
    assert np.isnan(row["value"])


def test_rows_stay_tidy_before_the_references_are_there(tmp_path):
    """Two feature extractors are two metrics, also while neither has a number."""
    scores = {
        f"score {f} {c} {s}.0": "pending" for f in ("digits", "pca") for c in ("linear", "cosine") for s in (0, 1)
    }
    ended = {"ref digits": "pending", "ref pca": "pending", **scores}
    frame = read_study(Folder(tmp_path, seeds=(0, 1), ended=ended).study).results
    assert not frame.duplicated(KEY).any()


def test_problems_name_the_stages_that_are_not_done(tmp_path):
    problems = read_study(
        Folder(tmp_path, ended={"nll cosine 1": "failed", "train linear 0": "pending"}).study
    ).problems
    assert sorted(problems) == [
        ("nll cosine 1", "failed", "nll cosine 1 went wrong"),
        ("train linear 0", "pending", ""),
    ]


def test_references_are_those_that_are_done(tmp_path):
    references = read_study(Folder(tmp_path, ended={"ref pca": "failed"}).study).references
    assert [r.record.label for r in references] == ["FD-digits"]


@pytest.mark.parametrize("content", [None, "", "[1, 2]", "{"])
def test_a_folder_without_a_plan_is_no_study(tmp_path, content):
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    with pytest.raises(DdpmkitError, match="is no study"):
        read_study(tmp_path)


def written(tmp_path, **how):
    folder = Folder(tmp_path, **how)
    records = read_study(folder.study)
    (folder.study / "results.csv").write_text(to_tidy(records))
    return records, folder.study


@pytest.mark.parametrize("direct", [True, False])
def test_csv_read_back_is_the_same_table(tmp_path, direct):
    records, study = written(tmp_path, sample_seeds=(0, 1), ended={"nll cosine 1": "failed"})
    back = load_results(study / "results.csv" if direct else study)
    expected = records.results.mask(records.results == "")  # nothing is nothing in a CSV, however it was spelt
    pd.testing.assert_frame_equal(back, expected, check_dtype=False, check_exact=True)
    assert pd.read_csv(study / "results.csv")["value"].equals(back["value"])


@pytest.mark.parametrize(
    "label", ["null", "None", "NA", "nan", "mein, Plan", 'a "b" c', "t=1/2", "ζ(2)", "true", "007"]
)
def test_csv_keeps_every_cell_name(tmp_path, label):
    _, study = written(tmp_path, cells=("linear", label))
    assert set(load_results(study)["cell"]) == {"linear", label}


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1+1", "\r=1+1", "\x1b=1", "\u200e=1")


@pytest.mark.parametrize("column", ["study", "cell", "dataset", "schedule", "metric", "definition", "fingerprint"])
def test_no_text_in_the_csv_starts_a_formula(tmp_path, column):
    frame = read_study(Folder(tmp_path, cells=("linear",), seeds=(0, 1)).study)
    frame.results[column] = FORMULAS
    back = pd.read_csv(io.StringIO(to_tidy(frame)), dtype=str, keep_default_na=False)
    assert len(back) == len(FORMULAS)
    assert [v for v in back[column] if not v.isprintable() or v.startswith(("=", "+", "-", "@"))] == []


@pytest.mark.parametrize("path", ["nowhere", "nowhere/results.csv"])
def test_no_results_is_a_plain_error(tmp_path, path):
    with pytest.raises(DdpmkitError, match="there are no results at"):
        load_results(tmp_path / path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n1,2\n3,4,5\n"'])
def test_a_file_that_is_no_csv_is_a_plain_error(tmp_path, content):
    (tmp_path / "results.csv").write_bytes(content)
    with pytest.raises(DdpmkitError, match="is no CSV of results"):
        load_results(tmp_path)
