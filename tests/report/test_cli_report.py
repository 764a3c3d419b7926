"""``ddpmkit report`` on results folders that this file writes by hand."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save

from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.report.write import write_report
from ddpmkit.study.store import find_study, newest_study

SETTINGS = {
    "dataset": "digits", "schedule": "linear", "sigma": "beta-tilde", "weighting": "simple", "backbone": "unet",
    "sampler": "ancestral", "timesteps": 1000, "sampling_steps": 50, "prediction": "eps",
}  # fmt: skip
REFERENCE = {
    "label": "FD-digits", "floors": {"FD-digits": 13.8}, "names": {"fd": "FD-digits"},
    "n_floor": 64, "n_reference": 797, "split": "test", "features": "f" * 64,
    "baselines": {"uniform": 4.0875},
}  # fmt: skip
SAMPLES = save({"levels": np.arange(4 * 64, dtype=np.uint8).reshape(4, 1, 8, 8) % 17})


def write_stage(out: Path, kind: str, label: str, result: dict) -> str:
    id = hashlib.sha256(f"{kind} {label}".encode()).hexdigest()
    done = out / "store" / kind / id[:2] / id / "out"
    done.mkdir(parents=True, exist_ok=True)
    (done / "result.json").write_text(json.dumps(result))
    digest = hashlib.sha256((done / "result.json").read_bytes()).hexdigest()
    (done / "COMMIT.json").write_text(json.dumps({"files": {"result.json": {"sha256": digest}}}))
    fingerprint = {"torch": "2.13.0", "device_name": "CPU", "threads": 1}
    (done.parent / "status.json").write_text(json.dumps({"state": "done", "seconds": 1.0, "fingerprint": fingerprint}))
    return id


def write_samples(out: Path, label: str) -> str:
    id = write_stage(out, "sample", label, {"count": 4, "evaluations": 200, "levels": 17})
    (out / "store" / "sample" / id[:2] / id / "out" / "samples.safetensors").write_bytes(SAMPLES)
    return id


def write_study(out: Path, name="demo", cells=("linear", "cosine", "sigmoid"), seeds=range(3), age=0.0) -> Path:
    """A finished study: a distance and a likelihood a result. ``age`` is how many seconds ago it ran."""
    rng = np.random.default_rng(len(cells))
    ref = write_stage(out, "ref", "digits", REFERENCE)
    results = []
    for c, cell in enumerate(cells):
        for seed in seeds:
            label = f"{name} {cell} {seed}"
            bound = {"total": 2 + 0.5 * c + float(rng.normal(0, 0.01)), "standard_error": 0.004}
            nll = {"clipped": bound, "unclipped": bound, "decoder": "cdf", "decoder_variance": "tilde2", "T": 1000}
            score = {"metrics": {"fd": {"value": 50 + 10 * c + float(rng.normal(0, 1))}}, "n": 64}
            results.append(
                {
                    "cell": cell,
                    "train_seed": seed,
                    "sample_seed": 0,
                    "train": write_stage(out, "train", label, {"parameters": 1000, "flops": 2_000_000}),
                    "sample": write_samples(out, label),
                    "scores": [["digits", write_stage(out, "score", label, score), ref]],
                    "nll": write_stage(out, "nll", label, {**nll, "split": "test", "images": 797, "evaluations": 2000}),
                }
            )
    plan = {
        "study": name,
        "grid": {"train_seeds": list(seeds)},
        "cells": [{"label": c, "slug": f"cell-{i}", "settings": SETTINGS} for i, c in enumerate(cells)],
        "results": results,
        "stages": [
            {"kind": "ref", "id": ref, "label": "reference digits"},
            *(
                {"kind": kind, "id": id, "label": f"{kind} {r['cell']} seed {r['train_seed']}"}
                for r in results
                for kind, id in (
                    ("train", r["train"]),
                    ("sample", r["sample"]),
                    ("score", r["scores"][0][1]),
                    ("nll", r["nll"]),
                )
            ),
        ],
    }
    folder = out / "studies" / name
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    then = time.time() - age
    os.utime(folder / "plan.json", (then, then))
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three studies; their names sort otherwise than their ages. For reading only."""
    out = tmp_path_factory.mktemp("report") / "results"
    write_study(out, "b-old", age=200)
    write_study(out, "a-new", age=10)
    write_study(out, "c-older", age=300)
    return out


@pytest.fixture
def report(capsys, results):
    """Run ``ddpmkit report`` and return its exit code, stdout and stderr."""

    def run(*args, out=results):
        code = main(["report", *map(str, args), "--out", str(out)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def study_in(text):
    return json.loads(text)["study"]


def test_the_newest_study_by_default(report):
    code, out, err = report("-f", "json")
    assert (code, err) == (0, "")
    assert study_in(out) == "a-new"


def test_a_study_by_name(report):
    assert study_in(report("b-old", "-f", "json")[1]) == "b-old"


def test_a_study_by_path(report, results, tmp_path):
    code, out, _ = report(results / "studies" / "c-older", "-f", "json", out=tmp_path / "elsewhere")
    assert code == 0
    assert study_in(out) == "c-older"


@pytest.mark.parametrize(
    ("where", "study"),
    [
        ("results/studies/b-old", "."),
        ("results/studies", "b-old"),
        ("results", "studies/b-old"),
        (".", "results/studies/b-old"),
    ],
)
def test_a_relative_path_finds_the_store_wherever_one_stands(report, results, monkeypatch, where, study):
    monkeypatch.chdir(results.parent / where)
    code, out, _ = report(study, "-f", "json", out="no-results-here")
    assert code == 0
    assert json.loads(out)["counts"] == {c: {"done": 3} for c in ("linear", "cosine", "sigmoid")}


def test_the_table_is_tab_separated_in_a_pipe(report):
    code, out, err = report()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "# study a-new"
    assert lines[1].split("\t")[:2] == ["cell", "seeds"]
    assert [line.split("\t")[0] for line in lines[2:5]] == ["linear", "cosine", "sigmoid"]
    assert "\x1b" not in out


def test_markdown(report):
    code, out, _ = report("-f", "md")
    assert code == 0
    assert "| linear | 3 |" in out
    assert "Not FID" in out


def test_csv_is_tidy_and_readable(report):
    code, out, _ = report("--format", "csv")
    frame = pd.read_csv(io.StringIO(out))
    assert code == 0
    assert len(frame) == 3 * 3 * 3
    assert not frame.duplicated(["cell", "train_seed", "sample_seed", "metric"]).any()


def test_json_is_strict(report):
    def refuse(name):
        raise AssertionError(name)

    found = json.loads(report("-f", "json")[1], parse_constant=refuse)
    assert found["cells"] == ["linear", "cosine", "sigmoid"]
    assert found["differences"]["NLL"]["cosine"]["verdict"] == "worse"


def test_another_baseline(report):
    found = json.loads(report("-f", "json", "--baseline", "sigmoid")[1])
    assert found["baseline"] == "sigmoid"
    assert found["differences"]["NLL"]["linear"]["verdict"] == "better"


def two_lines(err):
    error, hint = err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return error.removeprefix("error: "), hint.removeprefix("hint: ")


def test_no_studies_at_all(report, tmp_path):
    code, out, err = report(out=tmp_path / "nothing")
    assert (code, out) == (2, "")
    error, hint = two_lines(err)
    assert error == f"there are no studies in '{tmp_path / 'nothing'}'"
    assert hint.startswith("ddpmkit ablate")


def test_an_unknown_study_names_those_there_are(report):
    code, out, err = report("nope")
    assert (code, out) == (2, "")
    error, hint = two_lines(err)
    assert "no study 'nope'" in error
    assert all(name in hint for name in ("a-new", "b-old", "c-older"))


def test_an_unknown_format_names_the_formats(report):
    code, out, err = report("-f", "xlsx")
    assert (code, out) == (2, "")
    error, hint = two_lines(err)
    assert "'xlsx'" in error
    assert all(f in hint for f in ("terminal", "md", "latex", "html", "csv", "wide", "json"))


@pytest.mark.parametrize("form", ["table", "md", "latex", "csv", "wide", "json"])
def test_an_unknown_baseline_names_the_cells_whatever_the_format(report, form):
    code, out, err = report("--baseline", "sigmund", "-f", form)
    assert (code, out) == (2, "")
    error, hint = two_lines(err)
    assert "'sigmund'" in error
    assert all(c in hint for c in ("linear", "cosine", "sigmoid"))


@pytest.mark.parametrize("plan", ["{", "[]", "", '{"study": "a-new"}'])
def test_a_damaged_plan_is_the_users_business_and_no_internal_error(report, tmp_path, plan):
    (tmp_path / "studies" / "a-new").mkdir(parents=True)
    (tmp_path / "studies" / "a-new" / "plan.json").write_text(plan)
    code, out, err = report("a-new", out=tmp_path)
    assert (code, out) == (2, "")
    assert "a-new" in two_lines(err)[0]


def test_find_study_and_newest_study(results):
    assert newest_study(results).name == "a-new"
    assert find_study(None, results) == newest_study(results)
    assert find_study("b-old", results) == results / "studies" / "b-old"
    with pytest.raises(DdpmkitError, match="no studies"):
        newest_study(results / "x")


def test_a_name_goes_before_a_folder_of_that_name(results, tmp_path, monkeypatch):
    write_study(tmp_path / "other", "b-old", cells=("linear",), seeds=(0,))
    monkeypatch.chdir(tmp_path / "other" / "studies")
    assert find_study("b-old", results) == results / "studies" / "b-old"


@pytest.mark.long
def test_the_report_changes_nothing_in_the_results_folder(report, results):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in results.rglob("*")}

    before = state()
    for form in ("terminal", "md", "latex", "html", "csv", "wide", "json"):
        assert report("-f", form)[0] == 0
    assert state() == before


@pytest.mark.long
def test_the_report_needs_neither_torch_nor_matplotlib(results):
    script = (
        "import sys\n"
        "from ddpmkit.cli import main\n"
        "code = main(['report', '--out', sys.argv[1]])\n"
        "loaded = {'torch', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else code)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(results)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\ncell\tseeds" in run.stdout


@pytest.mark.long
def test_a_report_of_500_results_takes_little_more_than_ten_times_one_of_50(report, tmp_path):
    spent = {}
    for name, count in (("small", 5), ("large", 50)):
        write_study(tmp_path, name, cells=tuple(f"cell{i}" for i in range(count)), seeds=range(10))
        report(name, "-f", "json", out=tmp_path)  # what is loaded and compiled at the first use is no part of it
        started = time.process_time()  # of this process: what else the machine does is not the report's fault
        code, out, _ = report(name, "-f", "json", out=tmp_path)
        spent[name] = time.process_time() - started
        assert code == 0
        assert len(json.loads(out)["values"]["NLL"]) == count
    assert spent["large"] < 3 * 10 * spent["small"]


@pytest.mark.long
def test_written_files_are_the_printed_ones_and_the_same_every_time(report, no_pictures, tmp_path):
    folder = write_study(tmp_path, cells=("linear", "cosine"))
    write_report(folder)
    first = {name: (folder / name).read_bytes() for name in ("results.csv", "report.md", "report.json")}
    for name, form in (("results.csv", "csv"), ("report.md", "md"), ("report.json", "json")):
        assert report("-f", form, out=tmp_path)[1].encode() == first[name]
    write_report(folder)
    assert {name: (folder / name).read_bytes() for name in first} == first


@pytest.mark.long
def test_a_csv_made_elsewhere_gets_the_same_statistics(report, tmp_path):
    rows = [
        f"{s},{n},NLL,{3 - 0.5 * i + 0.01 * n * (i + 1)}" for i, s in enumerate(("ours", "theirs")) for n in range(4)
    ]
    path = tmp_path / "theirs.csv"
    path.write_text("\n".join(["method,train_seed,metric,value", *rows]) + "\n")
    found = json.loads(report(path, "-f", "json")[1])
    assert found["cells"] == ["ours", "theirs"]
    assert found["differences"]["NLL"]["theirs"]["verdict"] == "better"
    for form in ("terminal", "md", "latex", "html", "csv", "wide"):
        code, out, err = report(path, "-f", form)
        assert (code, err) == (0, "")
        assert "theirs" in out


def test_a_margin_reaches_the_verdicts_and_the_check(report, results, tmp_path):
    found = json.loads(report("b-old", "-f", "json", "--margin", "NLL=5")[1])
    assert found["margins"] == {"NLL": 5.0}
    code, out, err = report("b-old", "--margin", "NLL=-1")
    assert (code, out) == (2, "")
    assert "NLL" in two_lines(err)[0]


def test_a_file_s_name_says_which_form_it_holds(report, tmp_path):
    for name, begins in (("r.json", "{"), ("r.csv", "study,"), ("r.tex", "%"), ("r.md", "**study"), ("r.html", "<!")):
        assert report("b-old", "--to", tmp_path / name)[0] == 0
        assert (tmp_path / name).read_text().lstrip().startswith(begins), name
    code, _, err = report("b-old", "-f", "json", "--to", tmp_path / "r.md")
    assert code == 2
    assert err == f"error: '{tmp_path / 'r.md'}' would hold the form json\nhint: --format md, or another name\n"
    assert report("b-old", "-f", "wide", "--to", tmp_path / "w.csv")[0] == 0
    assert report("b-old", "--to", tmp_path / "r.txt")[0] == 0  # a name that says nothing: as in a terminal


def test_a_report_goes_to_a_file_and_says_so(report, tmp_path):
    printed = report("b-old", "-f", "md")[1]
    code, out, err = report("b-old", "-f", "md", "--to", tmp_path / "deep" / "r.md")
    assert (code, out, err) == (0, "", f"wrote {tmp_path / 'deep' / 'r.md'}\n")
    assert (tmp_path / "deep" / "r.md").read_text() == printed


@pytest.mark.long
def test_conditions_pivots_and_two_studies_from_the_command_line(report):
    code, out, _ = report("b-old", "--where", "cell!=sigmoid", "--metrics", "NLL", "--sort", "-cell")
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()[1:4]] == ["cell", "linear", "cosine"]
    code, out, _ = report("b-old", "c-older", "-f", "md")
    assert code == 0
    assert "b-old: cosine" in out
    assert "c-older: cosine" in out
    for wrong in (("--where", "nope=1"), ("--rows", "sigma"), ("--metrics", "FID"), ("--sort", "x")):
        code, out, err = report("b-old", *wrong)
        assert (code, out) == (2, "")
        two_lines(err)


@pytest.mark.long
def test_the_figures_of_what_is_shown_are_written_where_they_are_asked_for(report, results, tmp_path):
    before = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    code, out, err = report("b-old", "-f", "csv", "--figures", tmp_path / "figures")
    assert code == 0
    assert out.startswith("study,")  # what is printed is another thing
    names = {p.name for p in (tmp_path / "figures").iterdir()}
    assert err == f"wrote {len(names)} files into {tmp_path / 'figures'}\n"
    assert {f"metrics.{form}" for form in ("png", "svg", "pdf")} <= names
    stems = {name.rpartition(".")[0] for name in names if not name.startswith("samples-")}
    assert names >= {f"{stem}.{form}" for stem in stems for form in ("png", "svg", "pdf")}
    assert any(stem.startswith("effects-") for stem in stems)
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before


def test_a_file_is_no_folder_for_figures(report, tmp_path):
    (tmp_path / "figures").write_text("mine")
    code, out, err = report("b-old", "--figures", tmp_path / "figures")
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == f"error: '{tmp_path / 'figures'}' is a file, and no folder for figures"
    assert (tmp_path / "figures").read_text() == "mine"
