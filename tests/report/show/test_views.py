"""What is shown of a study: conditions, order, metrics, pivots, and studies side by side."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import pandas as pd
import pytest

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.axes import varying
from ddpmkit.report.read.compare import compare
from ddpmkit.report.read.conditions import select
from ddpmkit.report.read.frames import COLUMNS, Records
from ddpmkit.report.show.csv import to_tidy, to_wide
from ddpmkit.report.show.json import to_json
from ddpmkit.report.show.latex import to_latex
from ddpmkit.report.show.markdown import to_markdown
from ddpmkit.report.show.terminal import to_tsv
from ddpmkit.report.show.views import View, pivot, shown
from ddpmkit.report.write import make

SCHEDULES, SIGMAS = ("linear", "cosine:s=0.01"), ("beta", "beta-tilde", "fixed")


def records(name="demo", schedules=SCHEDULES, sigmas=SIGMAS, seeds=(0, 1, 2), meaning="n=64", shift=0.0, tmp="/r"):
    """A study of two axes whose value at (schedule i, sigma j, seed s) is 10 i + j + s / 10 + shift, by hand."""
    cells, results, rows = [], [], []
    for i, schedule in enumerate(schedules):
        for j, sigma in enumerate(sigmas):
            point = {"schedule": schedule, "sigma": sigma}
            label = f"{schedule} {sigma}"
            cells.append({"label": label, "slug": f"c{i}{j}", "point": point, "settings": {**point, "timesteps": 1000}})
            for s in seeds:
                ids = {"train": f"{name}t{i}{s}", "sample": f"{name}s{i}{j}{s}", "nll": None, "scores": []}
                results.append({"cell": label, "train_seed": s, "sample_seed": 0, **ids})
                for metric, more in (("FD-x", 0.0), ("NLL", 100.0)):
                    value = 10 * i + j * (1 + s / 50) + s / 10 + shift + more
                    row = dict.fromkeys(COLUMNS) | {"study": name, "cell": label, "train_seed": s, "sample_seed": 0}
                    said = f"{metric} {meaning} T={1000 + len(name)}"
                    rows.append(row | {"metric": metric, "value": value, "status": "done", "definition": said, "n": 64})
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"fingerprint": "object"})
    frame["fingerprint"], frame["standard_error"] = "", 0.0
    plan = {
        "study": name,
        "cells": cells,
        "results": results,
        "stages": [],
        "grid": {"train_seeds": list(seeds), "axes": {"schedule": list(schedules), "sigma": list(sigmas)}},
    }
    from pathlib import Path

    return Records(Path(tmp) / "studies" / name, plan, frame, [], [])


def view(r, **how):
    asked = View(**how)
    return shown(select(r, asked.where), summarise(select(r, asked.where)), asked, total=len(r.plan["cells"]))


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        (["schedule=linear"], ["linear beta", "linear beta-tilde", "linear fixed"]),
        (["schedule=cosine*", "sigma=beta"], ["cosine:s=0.01 beta"]),
        (["schedule!=linear", "sigma!=beta*"], ["cosine:s=0.01 fixed"]),
        (["schedule=cosine:s=0.01", "sigma=fixed"], ["cosine:s=0.01 fixed"]),  # an equals sign in the value
        (["timesteps=1e3", "cell=linear fixed"], ["linear fixed"]),  # numbers by value
        (["schedule=linear,cosine*", "sigma=beta"], ["linear beta", "cosine:s=0.01 beta"]),
        (["schedule=linear", "sigma!=beta,fixed"], ["linear beta-tilde"]),
        (["timesteps=10,1000", "cell=linear fixed,linear beta"], ["linear beta", "linear fixed"]),
    ],
)
def test_conditions_keep_the_cells_for_which_all_of_them_hold(where, kept):
    found = select(records(), where)
    assert [c["label"] for c in found.plan["cells"]] == kept
    assert set(found.results["cell"]) == {r["cell"] for r in found.plan["results"]} == set(kept)
    assert len(found.results) == len(kept) * 3 * 2


def test_the_family_of_holm_is_what_is_shown_and_the_notes_say_so():
    summary, _ = view(records(), where=("schedule=linear",))
    (first, second) = (summary.differences["NLL"][f"linear {s}"] for s in ("beta-tilde", "fixed"))
    assert first.p_holm == pytest.approx(min(1, 2 * min(first.p, second.p)), rel=1e-9) or first.p > second.p
    assert summary.notes[0] == "Shown: 3 of 6 cells, schedule=linear; Holm is over the contrasts shown."


def test_the_baseline_is_found_before_the_conditions_and_stays(maker):
    folder = maker.write(schedules=("linear", "cosine", "sigmoid"))
    where = View(where=("schedule=sigmoid",))
    found, summary, _ = make([folder], where, baseline="cosine")
    assert summary.cells == ("cosine", "sigmoid")
    assert [*summary.differences["NLL"]] == ["sigmoid"]
    assert {c["label"] for c in found.plan["cells"]} == {"cosine", "sigmoid"}
    assert summary.notes[0].startswith("Shown: 2 of 3 cells, schedule=sigmoid, and the baseline; ")
    _, both, _ = make([folder], View(where=("schedule=sigmoid,cosine",)), baseline="cosine")
    assert both.notes[0].startswith("Shown: 2 of 3 cells, schedule=sigmoid,cosine; ")
    with pytest.raises(DdpmkitError, match="no cell has schedule=x"):
        make([folder], View(where=("schedule=x",)), baseline="cosine")
    with pytest.raises(DdpmkitError, match="no cell 'cosin'; did you mean 'cosine'"):
        make([folder], where, baseline="cosin")


@pytest.mark.parametrize("command", ["report", "plot split", "plot evaluations", "plot classes", "ablate"])
def test_wherever_a_condition_is_taken_the_help_names_its_forms(command, capsys):
    from ddpmkit.cli import main

    assert main([*command.split(), "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for flag in ("--only", "--exclude") if command == "ablate" else ("--where",):
        told = said[said.index(f"{flag} CONDITION") :][:220]
        assert "!=" in told
        assert "values a,b" in told


@pytest.mark.parametrize(
    ("where", "message"),
    [(["schedul=linear"], "did you mean 'schedule'"), (["linear"], "axis=value"), (["schedule=x"], "no cell has")],
)
def test_a_condition_that_means_nothing_is_refused(where, message):
    with pytest.raises(DdpmkitError, match=message):
        select(records(), where)


def test_order_turns_the_rows_and_never_the_baseline():
    cells = [f"{s} {g}" for s in SCHEDULES for g in SIGMAS]
    for sort, expected in (
        ("NLL", cells),
        ("-NLL", cells[::-1]),
        ("cell", sorted(cells)),
        ("-cell", sorted(cells)[::-1]),
    ):
        summary, printed = view(records(), sort=sort)
        assert [r[0] for r in printed[0].rows] == expected
        assert summary.baseline == cells[0]
        assert [r[0] for r in printed[1].rows if r[1] == "NLL"] == [c for c in expected if c != cells[0]]


def test_only_the_metrics_asked_for_in_their_order():
    _, printed = view(records(), metrics=("NLL", "FD-x"))
    assert [h.split()[0] for h in printed[0].columns[2:]] == ["NLL", "FD-x"]
    summary, printed = view(records(), metrics=("FD-x",))
    assert {r[1] for r in printed[1].rows} == {"FD-x"} == set(summary.differences)
    with pytest.raises(DdpmkitError, match="did you mean 'FD-x'"):
        view(records(), metrics=("FD-y",))
    with pytest.raises(DdpmkitError, match="can't sort by"):
        view(records(), sort="FD")


def test_a_pivot_has_each_cell_at_its_crossing():
    summary, printed = view(records(), rows="sigma", cols="schedule")
    assert len(printed) == 2
    for table, metric in zip(printed, summary.metrics, strict=True):
        assert table.columns == ("sigma", *SCHEDULES)
        assert [r[0] for r in table.rows] == list(SIGMAS)
        for row in table.rows:
            for schedule, said in zip(SCHEDULES, row[1:], strict=True):
                assert float(said.split()[0]) == pytest.approx(
                    summary.intervals[metric][f"{schedule} {row[0]}"].mean, abs=0.06
                )
    assert printed[0].rows[0][1].endswith("baseline")


def test_one_axis_is_enough_where_two_vary_and_a_third_is_never_averaged():
    assert pivot(records(), summarise(records()), "schedule", None)[0].columns == ("schedule", *SIGMAS)
    r = records()
    for n, cell in enumerate(r.plan["cells"]):
        cell["settings"] = {**cell["settings"], "timesteps": 1000 if n % 2 else 400}
    printed = pivot(r, summarise(r), "schedule", "sigma")
    assert len(printed) == 2 * 2  # metrics times values of the third axis
    assert sum(bool(c) for t in printed for row in t.rows for c in row[1:]) == 2 * 6
    with pytest.raises(DdpmkitError, match="two axes"):
        pivot(r, summarise(r), "schedule", None)
    with pytest.raises(DdpmkitError, match="does not vary"):
        pivot(records(), summarise(records()), "schedule", "backbone")


def test_two_studies_side_by_side_are_compared_by_seed():
    a, b = records("a"), records("b", shift=0.5)
    both = compare([a, b])
    summary = summarise(both)
    assert summary.cells[0] == summary.baseline == "a: linear beta"
    assert len(summary.cells) == 12
    assert summary.differences["NLL"]["b: linear beta"].difference == pytest.approx(0.5)
    assert summary.values["FD-x"]["b: linear beta"] == {0: 0.5, 1: 0.6, 2: 0.7}
    # The study is an axis like any other: its effect is the shift, and it can be filtered and turned.
    (effect,) = (e for e in summary.effects["NLL"] if e.axis == "study")
    assert (effect.level, effect.reference, effect.matched) == ("b", "a", 6)
    assert effect.contrast.difference == pytest.approx(0.5)
    assert len(select(both, ["study=b"]).plan["cells"]) == 6
    assert pivot(both, summary, "study", "sigma")[0].columns == ("study", *SIGMAS)


def test_what_is_measured_otherwise_stands_in_a_column_of_its_own():
    both = compare([records("a"), records("b", meaning="n=32")])
    summary = summarise(both)
    assert summary.metrics == ("FD-x", "NLL", "FD-x (b)", "NLL (b)")
    assert set(summary.differences["FD-x"]) == {f"a: {s} {g}" for s in SCHEDULES for g in SIGMAS} - {summary.baseline}
    assert summary.differences["FD-x (b)"] == {}


def test_cells_that_studies_share_stand_once_and_studies_of_one_name_are_told_apart():
    assert len(compare([records("a"), records("a", tmp="/q")]).plan["cells"]) == 6
    other = records("a", tmp="/q")
    for r in other.plan["results"]:
        r["train"] += "x"
    labels = [c["label"] for c in compare([records("a"), other]).plan["cells"]]
    assert labels[0] == "r/a: linear beta"
    assert labels[6].endswith(": linear beta")
    assert len(set(labels)) == 12
    assert {r["out"] for r in compare([records("a"), other]).plan["results"]} == {"/r", "/q"}


def test_axes_that_vary():
    assert varying(records()) == {"schedule": list(SCHEDULES), "sigma": list(SIGMAS)}
    assert varying(records(schedules=("linear",))) == {"sigma": list(SIGMAS)}


def test_the_wide_csv_has_the_digits_of_the_table():
    r = records()
    summary = summarise(r)
    rows = list(csv.DictReader(io.StringIO(to_wide(r, summary))))
    printed = {line.split("\t")[0]: line.split("\t") for line in to_tsv(summary).splitlines()[2:8]}
    for row in rows:
        said = printed[row["cell"]]
        for column, metric in enumerate(("FD-x", "NLL"), 2):
            assert said[column] == f"{row[metric]} [{row[metric + ' low']}, {row[metric + ' high']}]"
    gaps = [line.split("\t") for line in to_tsv(summary).splitlines()[11:21]]
    by = {row["cell"]: row for row in rows}
    assert len([g for g in gaps if len(g) > 5]) == 10
    for cell, metric, gap, *_, verdict in (g for g in gaps if len(g) > 5):
        row = by[cell]
        three = (row[f"{metric} difference"], row[f"{metric} difference low"], row[f"{metric} difference high"])
        # A difference that is the same in every seed has no interval.
        assert gap == ("{} [{}, {}]".format(*three) if three[1] else three[0])
        assert row[f"{metric} verdict"] == verdict


def test_the_tidy_csv_has_every_number_of_the_records():
    r = records()
    frame = pd.read_csv(io.StringIO(to_tidy(r)))
    assert list(frame["value"]) == list(r.results["value"])


def test_json_holds_the_tables_as_they_are_printed_whatever_is_shown():
    summary, printed = view(records(), rows="sigma", cols="schedule", metrics=("NLL",))
    found = json.loads(to_json(summary, printed))
    assert [t["rows"] for t in found["tables"]] == [[list(r) for r in printed[0].rows]]
    assert found["metrics"] == ["NLL"]
    assert printed[0].rows[1][1] in to_tsv(summary, printed)
    assert printed[0].rows[1][1].split(" [")[0] in to_markdown(summary, printed)
    assert printed[0].rows[1][1].split(" [")[0] in to_latex(summary, printed)


def test_a_cell_without_a_number_comes_last_and_prints_a_dash():
    r = records()
    frame = r.results.copy()
    frame.loc[frame["cell"] == "linear beta-tilde", ["value", "status"]] = [math.nan, "failed"]
    _, printed = view(dataclasses.replace(r, results=frame), sort="-NLL")
    assert printed[0].rows[-1][0] == "linear beta-tilde"
    assert printed[0].rows[-1][2] == "-"
