"""Two studies of unlike data side by side: each one's baselines and floors under its own columns."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest

from ddpmkit.report.draw.charts import charts
from ddpmkit.report.judge.notes import notes_of
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.axes import values_of, varying_axes
from ddpmkit.report.read.compare import compare
from ddpmkit.report.read.conditions import select
from ddpmkit.report.read.frames import COLUMNS, Records, read_study
from ddpmkit.report.read.reference import Reference
from ddpmkit.report.show.tables import main_table
from ddpmkit.study.records import RefRecord

HIDDEN = ("copy", "NLL-unclipped", "NLL-train", "FD-x-debiased")


def study(name, levels, *, steps=4, floor=1.9, nll=True, seeds=(0, 1, 2), schedules=("linear", "cosine"), shift=0.0):
    rows, cells, results = [], [], []
    for i, schedule in enumerate(schedules):
        settings = {"schedule": schedule, "train_steps": steps, "dataset": f"npz:levels={levels}"}
        cells.append({"label": schedule, "slug": schedule, "point": {"schedule": schedule}, "settings": settings})
        for s in seeds:
            ids = {"train": f"{name}{i}{s}", "sample": None, "nll": f"n{name}{i}{s}", "scores": []}
            results.append({"cell": schedule, "train_seed": s, "sample_seed": 0, **ids})
            metrics = ("FD-x", *(("NLL",) if nll else ()), *HIDDEN)
            for m in metrics:
                row = dict.fromkeys(COLUMNS) | {"study": name, "cell": schedule, "train_seed": s, "sample_seed": 0}
                row |= {"metric": m, "value": 3 + i + 0.1 * s + 0.01 * s * i + shift, "status": "done", "n": 64.0}
                rows.append(row | {"definition": f"{m} data=d{levels} K={levels}", "standard_error": 0.01})
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    plan = {
        "study": name,
        "cells": cells,
        "results": results,
        "stages": [],
        "grid": {"train_seeds": list(seeds), "sample_seeds": [0], "axes": {"schedule": list(schedules)}},
    }
    reference = {
        "split": "test", "n_floor": 900, "floors": {"FD-x": floor, "FD-x-debiased": 0.1},
        "baselines": {"per-pixel categorical": 0.6 * levels, "uniform": 0.25 * levels}, "reference": f"d{levels}" * 8,
        "levels": levels,
    }  # fmt: skip
    return Records(Path(f"/r{name}/studies/{name}"), plan, frame, [Reference(RefRecord.read(reference))], [])


def table(*studies):
    found = main_table(summarise(compare(studies)))
    heads = [re.sub(r" [↓↑]| bits/dim", "", h) for h in found.columns]
    return {row[0]: dict(zip(heads, row, strict=True)) for row in found.rows}, found


@pytest.mark.parametrize("order", ["AB", "BA"])
def test_baselines_and_floors_stand_under_their_own_columns(order):
    both = {"A": study("A", 17), "B": study("B", 2, floor=0.3)}
    first, second = order
    rows, found = table(both[first], both[second])
    assert [h for h in found.columns if "bits/dim" in h] == ["NLL ↓ bits/dim", f"NLL ({second}) ↓ bits/dim"]
    uniform = {"A": 0.25 * 17, "B": 0.5}
    assert float(rows["uniform"]["NLL"]) == pytest.approx(uniform[first], abs=0.06)
    assert float(rows["uniform"][f"NLL ({second})"]) == pytest.approx(uniform[second], abs=0.06)
    floors = {"A": "1.9", "B": "0.3"}
    assert rows["real, train n=900"]["FD-x"].startswith(floors[first])
    assert rows["real, train n=900"][f"FD-x ({second})"].startswith(floors[second])


def test_what_one_study_alone_would_hide_is_hidden():
    records = compare([study("A", 17), study("B", 2)])
    summary = summarise(records)
    assert summary.metrics == ("FD-x", "NLL", "FD-x (B)", "NLL (B)")
    assert len(records.results["metric"].unique()) == 12  # the records keep them


@pytest.mark.parametrize("order", ["AB", "BA"])
def test_a_study_without_a_likelihood_lends_its_baselines_to_no_other(order):
    both = {"A": study("A", 17, nll=False), "B": study("B", 2)}
    rows, _ = table(*(both[k] for k in order))
    assert float(rows["uniform"]["NLL"]) == pytest.approx(0.5, abs=0.06)
    assert list(rows).count("uniform") == 1
    assert not any("uniform (" in name for name in rows)


def test_two_floors_of_one_column_have_a_row_each():
    rows, _ = table(study("A", 17, floor=1.9), study("B", 17, floor=2.6, steps=8, shift=0.5))
    assert (rows["real, train n=900"]["FD-x"], rows["real, train n=900 (B)"]["FD-x"]) == ("1.90", "2.60")
    assert "uniform (B)" not in rows  # the same number once


def test_every_setting_in_which_they_differ_is_said_in_one_note_training_steps_first():
    both = compare([study("A", 17, steps=4), study("B", 2, steps=8, seeds=(0, 1), schedules=("linear",))])
    (note,) = (n for n in summarise(both).notes if "differ in" in n)
    assert note.startswith("The studies, A against B, differ in: train_steps 4 / 8;")
    for said in ("dataset npz:levels=17 / npz:levels=2", "schedule linear, cosine / linear",
                 "train_seeds 0, 1, 2 / 0, 1", "levels 17 / 2", "data d17d17d1 / d2d2d2d2"):  # fmt: skip
        assert said in note
    assert not any("differ in" in n for n in summarise(study("A", 17)).notes)
    same = compare([study("A", 17), study("C", 17, shift=0.1)])
    assert not any("differ in" in n for n in summarise(same).notes)


def test_the_notes_speak_of_both_studies():
    both = compare([study("A", 17), study("B", 2)])
    notes = " ".join(summarise(both).notes)
    assert "NLL data=d17 K=17; NLL (B) data=d2 K=2" in notes
    assert "the same for all cells" not in notes
    for cell in ("A: linear", "B: linear"):
        assert notes.count(cell) >= 2  # the unclipped bound and the copy check of each
    assert "B: cosine" in next(n for n in notes_of(both, ("FD-x",), {}) if n.startswith("Copy check"))


def test_three_studies_each_keep_their_own():
    rows, found = table(study("A", 17), study("B", 2), study("C", 5))
    assert [float(rows["uniform"][f"NLL{of}"]) for of in ("", " (B)", " (C)")] == pytest.approx(
        [4.25, 0.5, 1.25], abs=0.06
    )
    assert len(found.columns) == 2 + 6


def test_one_study_is_left_as_it_is():
    alone = study("A", 17)
    assert compare([alone]) is alone
    assert dataclasses.replace(alone).originals == {}


def test_a_study_older_than_a_setting_stands_at_the_value_from_before(tmp_path, labelled, study):
    """A cell whose plan knows no labels was trained without them."""
    old = read_study(study)
    new = read_study(labelled({"w = 0": {}, "w = 2": {"guidance": 2.0}}, name="new"))
    for both in ([new, old], [old, new]):
        records = compare(both)
        assert {"conditional", "guidance", "study"} <= set(varying_axes(records))
        assert values_of(select(records, ["conditional=false"]), "study") == ["demo"]
        assert values_of(select(records, ["conditional=true"]), "study") == ["new"]
        assert set(records.results["conditional"]) == {True, False}
        assert {c["point"]["conditional"] for c in records.plan["cells"]} == {True, False}
        drawn = [chart.alt for chart in charts(records, summarise(records))]
        assert any(alt.startswith("Mean NLL-given-class by") for alt in drawn)


def test_an_axis_that_the_first_cell_does_not_know_varies(labelled):
    records = read_study(labelled({"a": {}, "b": {}}))
    records.plan["cells"][1]["settings"] |= {"schedule": "cosine", "flip": True}
    assert varying_axes(records) == ["schedule", "flip"]
    assert any("by schedule and flip" in chart.alt for chart in charts(records, summarise(records)))


def test_the_cells_that_got_fewer_seeds_stand_under_their_names_of_both_studies():
    a, b, c = (study(name, 17, shift=shift) for name, shift in (("a", 0.0), ("b", 1.0), ("c", 2.0)))
    a.plan["stopped"] = {"cosine": [0, 1]}
    b.plan["stopped"] = {"linear": [0]}
    assert compare([a, b, c]).plan["stopped"] == {"a: cosine": [0, 1], "b: linear": [0]}
    assert compare([c, a]).plan["stopped"] == {"a: cosine": [0, 1]}
