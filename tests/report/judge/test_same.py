"""Cells that rest on the same stages: one contrast, however many names it has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.frames import COLUMNS, Records
from ddpmkit.report.show.tables import contrast_table
from ddpmkit.report.show.words import findings, lead

BITS = {"linear": [3.0, 3.1, 3.3], "cosine": [0.9, 0.6, 1.1], "sigmoid": [3.2, 3.3, 3.4]}
GUIDANCES = ("0", "1", "-1")


def study(schedules=("linear", "cosine", "sigmoid"), guidances=GUIDANCES, *, shared=True, samples=1) -> Records:
    """A likelihood for each schedule and seed, which no guidance changes."""
    rows, cells = [], []
    for a in schedules:
        for w in guidances:
            cells.append({"label": f"{a} {w}", "point": {"schedule": a, "guidance": w}})
            for seed, value in enumerate(BITS[a]):
                for sample in range(samples):
                    stage = f"{a}{seed}" + ("" if shared else w)
                    rows.append(
                        dict.fromkeys(COLUMNS)
                        | {"cell": f"{a} {w}", "train_seed": seed, "sample_seed": sample, "metric": "NLL"}
                        | {"value": value, "status": "done", "n": 64, "standard_error": 0.01, "stage": stage}
                        | {"unit": "bits/dim", "definition": "NLL"}
                    )
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    plan = {"study": "demo", "cells": cells, "grid": {"train_seeds": [0, 1, 2], "sample_seeds": list(range(samples))}}
    return Records(Path("demo"), plan, frame, [], [])


@pytest.mark.parametrize("samples", [1, 3])
def test_a_contrast_counts_once_whatever_its_cells_are_called(samples):
    alone = summarise(study(guidances=("0",), samples=samples))
    whole = summarise(study(samples=samples))
    for schedule in ("cosine", "sigmoid"):
        wanted = alone.differences["NLL"][f"{schedule} 0"]
        for w in GUIDANCES:
            got = whole.differences["NLL"][f"{schedule} {w}"]
            assert (got.p_holm, got.low, got.high, got.verdict) == (
                wanted.p_holm, wanted.low, wanted.high, wanted.verdict,
            )  # fmt: skip
    effects = {(e.axis, e.level): e.contrast for e in whole.effects["NLL"]}
    assert effects["schedule", "cosine"].p_holm == alone.differences["NLL"]["cosine 0"].p_holm
    assert effects["schedule", "cosine"].low == alone.differences["NLL"]["cosine 0"].low
    assert {effects["guidance", w].verdict for w in ("1", "-1")} == {"one result"}
    assert {i.contrast.verdict for i in whole.interactions["NLL"]} == {"one result"}
    # What is built on the family counts alike: the smallest gap, and the scatter of the differences.
    assert whole.smallest["NLL"] == alone.smallest["NLL"]
    assert whole.variance_of_differences["NLL"] == alone.variance_of_differences["NLL"]
    assert whole.variance["NLL"].train == alone.variance["NLL"].train
    assert whole.variance["NLL"].evaluation == pytest.approx(alone.variance["NLL"].evaluation)


def test_cells_of_one_stage_are_not_settled_and_a_note_says_which():
    summary = summarise(study())
    assert summary.differences["NLL"]["linear 1"].verdict == "one result"
    assert "of 2 differences from linear 0" in lead(summary)[1]
    (note,) = (n for n in summary.notes if "one result under several names" in n)
    assert "linear 1, linear -1 as linear 0; cosine 1, cosine -1 as cosine 0" in note
    assert not any(n.startswith("The same numbers") for n in summary.notes)
    two = summarise(study(("linear",)))
    assert not any(f.settled for f in findings(two))
    assert len(lead(two)) == 1


def test_two_names_of_one_result_differ_by_nothing():
    rows = {(r[0], r[1]): r for r in contrast_table(summarise(study())).rows}
    assert rows["linear 1", "NLL"][2] == "0"  # and by no interval around it, as if it were known well
    assert "[" in rows["cosine 0", "NLL"][2]


def test_the_same_numbers_of_other_stages_still_count_each():
    apart, alone = summarise(study(shared=False)), summarise(study(guidances=("0",)))
    assert apart.differences["NLL"]["cosine 1"].p_holm > alone.differences["NLL"]["cosine 0"].p_holm
    assert apart.differences["NLL"]["linear 1"].verdict == "inconclusive"
    assert apart.copies == {}
    assert "copies" not in apart.json()
    assert "copies" in summarise(study()).json()


def test_a_stage_that_means_something_else_makes_no_two_numbers_one():
    found = study()
    theirs = replace(found, results=found.results.assign(stage="test"))
    assert theirs.results["value"].nunique() > 3
    summary = summarise(theirs)
    assert summary.differences["NLL"]["cosine 0"].verdict != "one result"
    assert summary.differences["NLL"]["cosine 0"].p is not None


def test_half_an_effect_is_another_contrast():
    """Where guidance changes the numbers of one schedule alone, its effect is a mean with nothing in it."""
    found = study(("linear", "cosine"), ("0", "1"))
    rows = found.results.copy()
    moved = rows["cell"] == "cosine 1"
    rows.loc[moved, "value"] += [0.5, 0.7, 0.4]
    rows.loc[moved, "stage"] += "w"
    summary = summarise(replace(found, results=rows))
    (effect,) = (e.contrast for e in summary.effects["NLL"] if e.axis == "guidance")
    assert effect.difference == pytest.approx((0.5 + 0.7 + 0.4) / 3 / 2)
    assert effect.verdict != "one result"
    assert effect.p is not None
