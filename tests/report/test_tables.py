"""What a report says: intervals, contrasts, counts and notes from a tidy frame, and how its numbers are written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ddpmkit.report.frames import COLUMNS, Records
from ddpmkit.report.tables import by_seed, contrast_table, decimals, interval_text, main_table, p_text, summarise
from ddpmkit.statistics import Interval

BLANK = dict.fromkeys(COLUMNS)


def row(cell, seed, metric, value, *, sample_seed=0, status="done", n=64, **more):
    return {
        **BLANK, "study": "demo", "cell": cell, "train_seed": seed, "sample_seed": sample_seed, "metric": metric,
        "value": value, "status": status, "n": n, "standard_error": 0.01, "sampler": "ancestral",
        "sampling_steps": 50, "definition": f"{metric} n={n}/797 ref=test extractor=12345678", "fingerprint": "torch 2",
        "train_seconds": 5.0, "parameters": 1000, "flops": 2_000_000, **more,
    }  # fmt: skip


def records(rows, *, references=(), problems=()):
    """A study of these rows; its cells and seeds are those of the rows."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    plan = {
        "study": "demo",
        "cells": [{"label": c} for c in dict.fromkeys(frame["cell"])],
        "grid": {"train_seeds": list(dict.fromkeys(frame["train_seed"]))},
    }
    return Records(Path("demo"), plan, frame, list(references), list(problems))


def rows_of(cells, metric="NLL"):
    """cell -> values by train seed; None is a seed that diverged."""
    return [
        row(cell, seed, metric, value, status="diverged" if value is None else "done")
        for cell, values in cells.items()
        for seed, value in enumerate(values)
    ]


HIGH, LOW, SAME = [10.0, 11.0, 12.0], [5.0, 6.1, 7.0], [10.1, 10.8, 12.2]


def test_sample_seeds_are_averaged_inside_the_train_seed():
    values = {0: [1.0, 3.0], 1: [10.0, 20.0], 2: [5.0, 6.0]}
    rows = [row("a", t, "FD-digits", v, sample_seed=s) for t, both in values.items() for s, v in enumerate(both)]
    summary = summarise(records(rows))
    assert summary.values["FD-digits"]["a"] == {0: 2.0, 1: 15.0, 2: 5.5}
    expected = stats.ttest_1samp([2.0, 15.0, 5.5], 0).confidence_interval(0.95)
    got = summary.intervals["FD-digits"]["a"]
    assert got.n == 3  # not 6: samples of one network are no replicates
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


def test_a_train_seed_counts_only_when_all_its_samples_are_there():
    rows = [row("a", 0, "FD", 1.0), row("a", 0, "FD", None, sample_seed=1, status="failed"), row("a", 1, "FD", 4.0)]
    assert by_seed(records(rows).results, "FD", "a") == {1: 4.0}


def test_contrasts_are_against_the_first_cell_or_the_one_named():
    study = records(rows_of({"a": HIGH, "b": LOW, "c": SAME}))
    first, named = summarise(study), summarise(study, "b")
    assert {c: d.verdict for c, d in first.differences["NLL"].items()} == {"b": "better", "c": "inconclusive"}
    assert {c: d.verdict for c, d in named.differences["NLL"].items()} == {"a": "worse", "c": "worse"}
    test = stats.ttest_rel(LOW, HIGH)
    assert first.differences["NLL"]["b"].p == pytest.approx(test.pvalue)


def test_the_family_of_holm_is_the_contrasts_of_one_metric_and_the_notes_say_so():
    """Two contrasts of one metric are doubled; the same two of another metric change nothing."""
    base, cell = np.array([10.0, 11.0, 12.0]), np.array([9.3, 10.4, 11.2])
    p = stats.ttest_rel(cell, base).pvalue
    values = {"a": base.tolist(), "b": cell.tolist(), "c": [9.9, 11.2, 11.9]}
    summary = summarise(records([r for m in ("FD-digits", "FD-pca16") for r in rows_of(values, m)]))
    for metric in ("FD-digits", "FD-pca16"):
        assert summary.differences[metric]["b"].p_holm == pytest.approx(2 * p)
    assert any("Holm over the contrasts of one metric" in note for note in summary.notes)


@pytest.mark.parametrize("state", ["diverged", "failed", "interrupted", "pending"])
def test_a_cell_with_a_seed_that_is_not_done_is_counted_and_not_called_better(state):
    rows = rows_of({"a": [*HIGH, 11.5], "b": [*LOW, None]})
    rows[-1]["status"] = state
    summary = summarise(records(rows))
    assert summary.counts["b"] == {"done": 3, state: 1}
    assert summary.differences["NLL"]["b"].verdict == "inconclusive"
    assert main_table(summary).rows[1][1] == f"3 (1 {state})"
    assert any("not called better" in note and note.startswith("b:") for note in summary.notes)


def test_a_failure_of_one_metric_is_counted_though_the_other_metric_is_done():
    """The distances of seed 3 are there, its likelihood diverged: no better on the seeds that are left."""
    rows = rows_of({"a": [*HIGH, 11.5], "b": [*SAME, 11.0]}, "FD-digits")
    rows += rows_of({"a": [*HIGH, 11.5], "b": [*LOW, None]}, "NLL")
    summary = summarise(records(rows))
    assert summary.counts["b"].get("diverged") == 1
    assert summary.differences["NLL"]["b"].verdict == "inconclusive"


def test_distances_over_different_numbers_of_samples_are_not_compared():
    """FD has a bias that depends on N: a verdict between n=64 and n=640 would be about N."""
    rows = [row("a", s, "FD-digits", v, n=64) for s, v in enumerate(HIGH)]
    rows += [row("b", s, "FD-digits", v, n=640) for s, v in enumerate(LOW)]
    summary = summarise(records(rows))
    verdicts = {c.verdict for cells in summary.differences.values() for c in cells.values()}
    assert verdicts.isdisjoint({"better", "worse"})


def test_a_cell_without_any_number_has_a_row_and_no_difference():
    summary = summarise(records(rows_of({"a": HIGH, "b": [None, None, None]})))
    table = main_table(summary)
    assert table.rows[1][:3] == ("b", "0 (3 diverged)", "-")
    assert "b" not in summary.differences["NLL"]


def test_a_baseline_without_any_number_gives_no_differences():
    summary = summarise(records(rows_of({"a": [None] * 3, "b": LOW})))
    assert summary.differences == {"NLL": {}}
    assert contrast_table(summary) is None


def test_one_cell_has_nothing_to_be_compared_with():
    assert contrast_table(summarise(records(rows_of({"a": HIGH})))) is None


def test_one_seed_is_a_number_without_interval_or_verdict_and_the_notes_say_so():
    summary = summarise(records(rows_of({"a": [10.0], "b": [5.0]})))
    assert main_table(summary).rows[1][2] == "5.000"
    assert contrast_table(summary).rows[0] == ("b", "NLL", "-5.000", "", "", "single seed")
    assert any("One train seed" in note and "no verdict" in note for note in summary.notes)


def test_unclipped_likelihood_stands_in_the_notes_and_not_in_the_table():
    rows = rows_of({"a": HIGH, "b": LOW}) + rows_of({"a": [20.0] * 3, "b": [30.0] * 3}, "NLL-unclipped")
    summary = summarise(records(rows))
    assert summary.metrics == ("NLL",)
    assert any("a 20.00" in note and "b 30.00" in note for note in summary.notes)


def test_references_stand_below_the_cells_under_their_own_metric():
    reference = {"label": "FD-digits", "floor": 13.8, "n_floor": 64, "baselines": {"uniform": 4.0875}}
    rows = rows_of({"a": HIGH, "b": LOW}, "FD-digits") + rows_of({"a": HIGH, "b": LOW})
    table = main_table(summarise(records(rows, references=[reference])))
    assert table.references == 2
    floor, uniform = table.rows[-2:]
    assert (float(floor[2]), floor[3]) == (pytest.approx(13.8, abs=0.05), "")
    assert (uniform[2], float(uniform[3])) == ("", pytest.approx(4.0875, abs=0.05))
    assert "real" in floor[0]
    assert "n=64" in floor[0]
    assert "uniform" in uniform[0]


def test_results_of_two_machines_are_said_to_be_mixed():
    rows = rows_of({"a": HIGH})
    rows[1]["fingerprint"] = "torch 3"
    assert any("Mixed fingerprints" in n and "torch 2" in n and "torch 3" in n for n in summarise(records(rows)).notes)
    assert not any("Mixed" in n for n in summarise(records(rows_of({"a": HIGH}))).notes)


def test_the_error_of_a_failed_stage_is_told_however_many_stages_wait_for_it():
    problems = [(f"score {i}", "pending", "") for i in range(9)] + [("train b seed 0", "failed", "CUDA out of memory")]
    summary = summarise(records(rows_of({"a": HIGH}), problems=problems))
    assert any("CUDA out of memory" in note for note in summary.notes)


def test_every_definition_of_a_metric_in_the_table_is_told():
    """With T as an axis the likelihoods are of two kinds, and the note must not name one of them for both."""
    rows = rows_of({"a": HIGH, "b": LOW})
    for r in rows:
        r["definition"] = "NLL T=1000" if r["cell"] == "a" else "NLL T=100 "
    notes = " ".join(summarise(records(rows)).notes)
    assert "T=1000" in notes
    assert "T=100 " in notes


def test_the_notes_never_speak_of_fid_for_another_extractor():
    notes = summarise(records(rows_of({"a": HIGH}, "FD-digits"))).notes
    assert any("Not FID" in n for n in notes)
    assert not any(re.search(r"(?<!Not )FID", n) for n in notes)


def around(half):
    return Interval(50.0, 50.0 - half, 50.0 + half, 3)


@pytest.mark.parametrize(
    ("half", "digits"), [(0.0012, 4), (0.012, 3), (0.3, 2), (0.9, 2), (1.2, 1), (9.0, 1), (47.0, 1), (2000.0, 1)]
)
def test_a_column_has_two_significant_digits_of_its_uncertainty(half, digits):
    assert decimals([around(half)]) == digits


def test_the_digits_of_a_column_are_those_of_its_typical_interval():
    assert decimals([around(0.3), around(0.2), around(80.0)]) == 2


@pytest.mark.parametrize("intervals", [[], [Interval(5.0, None, None, 1)], [Interval(5.0, 5.0, 5.0, 3)]])
def test_without_an_interval_there_are_three_decimals(intervals):
    assert decimals(intervals) == 3


def test_a_difference_too_small_to_write_is_not_negative_zero():
    assert "-0.000" not in interval_text(Interval(-0.0001, -0.0002, 0.0001, 3), 3, "+")


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "<.001"), (0.00099, "<.001"), (0.001, ".001"), (0.0523, ".052"), (0.5, ".500"), (1.0, "1")]
)
def test_p_values(p, text):
    assert p_text(p) == text


def test_a_p_that_rounds_to_one_is_written_as_one():
    assert p_text(0.9999) == p_text(1.0)


@pytest.mark.parametrize(
    ("interval", "digits", "sign", "text"),
    [
        (None, 3, "", "-"),
        (Interval(5.0, None, None, 1), 3, "", "5.000"),
        (Interval(5.7494, 4.8857, 6.6119, 3), 3, "", "5.749 [4.886, 6.612]"),
        (Interval(189.44, 93.5, 285.3, 3), 1, "", "189.4 [93.5, 285.3]"),
        (Interval(0.5, -0.25, 1.25, 3), 2, "+", "+0.50 [-0.25, +1.25]"),
    ],
)
def test_intervals_have_the_same_digits_at_both_ends(interval, digits, sign, text):
    assert interval_text(interval, digits, sign) == text


def written(table):
    """(low, high, verdict) of every row, as a reader sees them."""
    for r in table.rows:
        low, high = re.search(r"\[(.+), (.+)\]", r[table.columns.index("difference")]).groups()
        yield float(low), float(high), r[table.columns.index("verdict")]


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 100.0])
def test_the_interval_as_written_agrees_with_the_verdict_as_written(scale):
    """An interval that excludes zero must not be written with a zero end beside "worse"."""
    cells = {"a": (np.array([1.0, 2.0, 3.0]) * scale).tolist(), "b": (np.array([3.1, 4.0, 5.2]) * scale).tolist()}
    ((low, high, verdict),) = written(contrast_table(summarise(records(rows_of(cells, "KID")))))
    assert verdict == "worse"
    assert 0 < low < high


def test_an_interval_that_ends_just_beside_zero_is_written_beside_zero():
    # t_{2, 0.975} s / sqrt(3) = 2.48414 for a spread of 1, so the mean 2.4870 leaves 0.003 below.
    cells = {"a": [0.0, 0.0, 0.0], "b": [1.487, 2.487, 3.487]}
    ((low, high, verdict),) = written(contrast_table(summarise(records(rows_of(cells, "KID")))))
    assert verdict == "worse"
    assert 0 < low < high
