"""What a report says: intervals, contrasts, counts and notes from a tidy frame, and how its numbers are written."""

from __future__ import annotations

import itertools
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.judge.summarise import by_seed, summarise
from ddpmkit.report.read.frames import COLUMNS, Records
from ddpmkit.report.read.reference import Reference
from ddpmkit.report.show.numbers import decimals, interval_text, p_text
from ddpmkit.report.show.tables import all_tables, contrast_table, main_table
from ddpmkit.statistics import Interval, contrasts, seeds_needed, smallest_visible
from ddpmkit.study.records import RefRecord

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
    reference = {
        "label": "FD-digits",
        "floors": {"FD-digits": 13.8},
        "n_floor": 64,
        "split": "test",
        "baselines": {"uniform": 4.0875},
    }
    rows = rows_of({"a": HIGH, "b": LOW}, "FD-digits") + rows_of({"a": HIGH, "b": LOW})
    table = main_table(summarise(records(rows, references=[Reference(RefRecord.read(reference))])))
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
    ("half", "digits"), [(0.0012, 4), (0.012, 3), (0.3, 2), (0.9, 2), (1.2, 1), (9.0, 1), (47.0, 0), (2000.0, -2)]
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


# --- what a study says beyond its differences --------------------------------------------------------------------


def grid(values, points, metric="NLL", **more):
    """Records of a factorial study: cell -> values by train seed, cell -> axis -> level."""
    found = records(rows_of(values, metric))
    cells = [{"label": c, "point": points[c]} for c in values]
    return replace(found, plan={**found.plan, "cells": cells, **more})


POINTS = {f"{a} {b}": {"schedule": a, "sigma": b} for a in ("linear", "cosine") for b in ("beta", "tilde")}
FOUR = {
    "linear beta": [10.0, 11.0, 12.0, 11.4],
    "linear tilde": [10.3, 11.1, 12.2, 11.5],
    "cosine beta": [5.1, 6.0, 7.2, 6.3],
    "cosine tilde": [5.5, 6.2, 7.3, 6.5],
}


def test_effects_and_differences_of_one_metric_are_one_family():
    summary = summarise(grid(FOUR, POINTS))
    told = {(e.axis, e.level, e.reference): e for e in summary.effects["NLL"]}
    assert list(told) == [("schedule", "cosine", "linear"), ("sigma", "tilde", "beta")]
    v = {c: np.array(x) for c, x in FOUR.items()}
    schedule = (v["cosine beta"] - v["linear beta"] + v["cosine tilde"] - v["linear tilde"]) / 2
    p = stats.ttest_1samp(schedule, 0).pvalue
    effect = told["schedule", "cosine", "linear"]
    assert effect.contrast.p == pytest.approx(p)
    assert (effect.matched, effect.left_out, effect.contrast.verdict) == (2, 0, "better")
    ps = [c.p for c in summary.differences["NLL"].values()] + [e.contrast.p for e in summary.effects["NLL"]]
    assert len(ps) == 5
    for e in summary.effects["NLL"]:
        rank = sorted(ps).index(e.contrast.p)
        steps = [(5 - i) * q for i, q in enumerate(sorted(ps))][: rank + 1]
        assert e.contrast.p_holm == pytest.approx(min(1, max(steps)))


@pytest.mark.parametrize("seed", range(8))
def test_a_report_judges_as_the_contrasts_that_the_simulations_run_through(seed):
    rng = np.random.default_rng(seed)
    gaps = rng.choice([0.0, 0.5, 30.0], size=(7, 1))
    numbers = rng.normal(50, 2, (7, 3)) - gaps
    values = {f"c{i}": x.tolist() for i, x in enumerate(numbers)}
    expected = contrasts({c: dict(enumerate(x)) for c, x in values.items()}, "c0", margin=3.0)
    assert summarise(records(rows_of(values)), margin="NLL=3").differences["NLL"] == expected


def test_one_axis_has_differences_alone_because_its_effects_would_repeat_them():
    values = {"a": HIGH, "b": LOW, "c": SAME}
    summary = summarise(grid(values, {c: {"schedule": c} for c in values}))
    assert (summary.effects, summary.interactions) == ({"NLL": ()}, {"NLL": ()})
    plain = summarise(records(rows_of(values)))
    assert summary.differences == plain.differences
    lost = summarise(grid({**values, "c": [None] * 3}, {c: {"schedule": c} for c in values}))
    assert lost.effects == {"NLL": ()}


def test_one_axis_at_a_time_repeats_nothing_and_says_what_it_cannot_see():
    three = {c: FOUR[c] for c in ("linear beta", "linear tilde", "cosine beta")}
    summary = summarise(grid(three, POINTS))
    assert (summary.effects, summary.interactions) == ({"NLL": ()}, {"NLL": ()})
    assert any("one at a time" in n for n in summary.notes)
    assert not any("one at a time" in n for n in summarise(grid(FOUR, POINTS)).notes)


def test_an_interaction_is_said_in_the_notes_and_its_absence_is_no_proof():
    crossed = {**FOUR, "cosine tilde": [25.1, 26.3, 27.0, 26.2]}
    there, not_there = summarise(grid(crossed, POINTS)), summarise(grid(FOUR, POINTS))
    (found,) = there.interactions["NLL"]
    assert (found.axes, found.contrast.verdict) == (("schedule", "sigma"), "interaction")
    assert any("the effect of schedule (cosine against linear) depends on sigma" in n for n in there.notes)
    assert not_there.interactions["NLL"][0].contrast.verdict == "inconclusive"
    assert any("no interaction" in n and "no proof" in n for n in not_there.notes)


def test_the_baseline_that_is_named_gives_the_reference_levels():
    summary = summarise(grid(FOUR, POINTS), "cosine tilde")
    assert {(e.level, e.reference) for e in summary.effects["NLL"]} == {("linear", "cosine"), ("beta", "tilde")}


def test_a_level_with_a_diverged_cell_is_not_called_better():
    lost = {**FOUR, "cosine tilde": [5.5, 6.2, 7.3, None]}
    summary = summarise(grid(lost, POINTS))
    effect = summary.effects["NLL"][0]
    assert (effect.level, effect.contrast.n, effect.contrast.verdict) == ("cosine", 3, "inconclusive")
    assert any("fewer than 4" in n for n in summary.notes)


@pytest.mark.long
def test_verdicts_of_a_grid_do_not_depend_on_the_order_of_its_cells():
    expected = summarise(grid(FOUR, POINTS), "linear beta")
    for order in itertools.permutations(FOUR):
        got = summarise(grid({c: FOUR[c] for c in order}, POINTS), "linear beta")
        assert got.differences == expected.differences
        assert {(e.axis, e.level): e.contrast for e in got.effects["NLL"]} == {
            (e.axis, e.level): e.contrast for e in expected.effects["NLL"]
        }


@pytest.mark.parametrize(
    ("metric", "way", "verdict"),
    [
        ("FD-digits", "lower", "better"),
        ("KID", "lower", "better"),
        ("precision-digits", "higher", "worse"),
        ("Recall", "higher", "worse"),
        ("density", "higher", "worse"),
        ("coverage", "higher", "worse"),
        ("two-sample-p", "none", "not ranked"),
        ("c2st", "none", "not ranked"),
        ("precisely-nothing", "lower", "better"),
    ],
)
def test_the_direction_is_the_metrics(metric, way, verdict):
    summary = summarise(records(rows_of({"a": HIGH, "b": LOW}, metric)))
    assert summary.directions == {metric: way}
    assert summary.differences[metric]["b"].verdict == verdict
    arrow = {"lower": " ↓", "higher": " ↑", "none": ""}[way]
    assert main_table(summary).columns[2] == metric + arrow


def test_a_record_says_its_direction_and_the_caller_has_the_last_word():
    found = records(rows_of({"a": HIGH, "b": LOW}, "reward"))
    found.results["better"] = "higher"
    assert summarise(found).differences["reward"]["b"].verdict == "worse"
    assert summarise(found, directions={"reward": "lower"}).differences["reward"]["b"].verdict == "better"
    for given in ({"reward": "up"}, {"other": "lower"}):
        with pytest.raises(DdpmkitError):
            summarise(found, directions=given)


CLOSE = {"a": [10.0, 11.0, 12.0], "b": [10.1, 10.9, 12.1]}


@pytest.mark.parametrize("margin", [{"NLL": 1.0}, "NLL=1", "1.0", " NLL = 1 "])
def test_no_gap_larger_than_a_margin_set_beforehand(margin):
    found = records(rows_of(CLOSE))
    assert summarise(found).differences["NLL"]["b"].verdict == "inconclusive"
    summary = summarise(found, margin=margin)
    assert summary.margins == {"NLL": 1.0}
    assert summary.differences["NLL"]["b"].verdict == "no gap larger than 1"
    assert any("Margin set beforehand: NLL 1" in n for n in summary.notes)


def test_a_margin_holds_for_its_own_metric():
    found = records(rows_of(CLOSE) + rows_of(CLOSE, "KID"))
    summary = summarise(found, margin="NLL=1")
    assert summary.differences["KID"]["b"].verdict == "inconclusive"
    assert summary.differences["KID"]["b"].p_equivalence is None


@pytest.mark.parametrize("margin", ["0", "-1", "nan", "inf", "x", "KID=1", {"NLL": 0.0}, "NLL="])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(DdpmkitError):
        summarise(records(rows_of(CLOSE)), margin=margin)


def test_a_bare_margin_names_its_metric_where_there_are_several():
    with pytest.raises(DdpmkitError, match="names no metric"):
        summarise(records(rows_of(CLOSE) + rows_of(CLOSE, "KID")), margin="0.5")


def test_an_unknown_baseline_is_a_plain_error():
    with pytest.raises(DdpmkitError, match="no cell 'aa'"):
        summarise(records(rows_of(CLOSE)), "aa")


def test_cells_that_tie_on_every_seed_are_inconclusive_and_the_notes_say_so():
    summary = summarise(records(rows_of({"a": HIGH, "b": HIGH, "c": LOW})))
    assert summary.differences["NLL"]["b"].verdict == "inconclusive"
    assert summary.differences["NLL"]["c"].p_holm == 2 * summary.differences["NLL"]["c"].p  # a family of two
    assert any(n.startswith("The same numbers on every seed: b NLL.") for n in summary.notes)
    assert not any(n.startswith("The same difference") for n in summary.notes)


@pytest.mark.parametrize(
    "other",
    [
        {"definition": "NLL n=64/797 ref=train extractor=12345678"},
        {"definition": "NLL n=64/797 ref=test extractor=87654321"},
        {"definition": "NLL n=64/797 ref=test extractor=12345678 decoder=density"},
        {"definition": "NLL n=64/797 ref=test extractor=12345678 quantiser=none"},
        {"definition": "NLL n=64/797 ref=test extractor=12345678 precision=bf16"},
        {"definition": None},
        {"n": 640},
    ],
)
def test_numbers_that_were_measured_differently_are_not_compared(other):
    rows = rows_of({"a": HIGH, "b": LOW, "c": SAME})
    for r in rows[3:6]:
        r.update(other)
    summary = summarise(records(rows))
    assert summary.differences["NLL"]["b"].verdict == "not comparable"
    assert summary.differences["NLL"]["b"].p is None
    assert summary.differences["NLL"]["c"].p_holm == summary.differences["NLL"]["c"].p
    assert any("not compared with a" in n and "b (" in n for n in summary.notes)
    assert "b" in summary.intervals["NLL"]  # its own number stands, in its own row


@pytest.mark.parametrize("part", ["T=100", "variance=beta1"])
def test_what_belongs_to_the_model_is_compared_and_said(part):
    rows = rows_of({"a": HIGH, "b": LOW})
    for r in rows:
        r["definition"] = "NLL decoder=cdf variance=tilde2 T=1000 split=test"
    for r in rows[3:]:
        key = part.split("=")[0]
        r["definition"] = re.sub(rf"\b{key}=\S+", part, r["definition"])
    summary = summarise(records(rows))
    assert summary.differences["NLL"]["b"].verdict == "better"
    assert any("is part of the model" in n and part.split("=")[1] in n for n in summary.notes)


def test_cells_of_different_precision_are_footnoted():
    found = records(rows_of({"a": HIGH, "b": LOW}))
    for given, told in ((("fp32", "bf16"), True), (("fp32", "fp32"), False)):
        cells = [{"label": c, "settings": {"precision": p}} for c, p in zip("ab", given, strict=True)]
        notes = summarise(replace(found, plan={**found.plan, "cells": cells})).notes
        assert any("different precision" in n and "bf16, fp32" in n for n in notes) == told


def test_a_metric_that_stands_in_no_table_gets_no_note_of_its_own():
    rows = rows_of({"a": HIGH, "b": LOW}) + rows_of({"a": HIGH, "b": LOW}, "NLL-unclipped")
    for r in rows[9:]:
        r["n"] = 7
    assert not any("not compared" in n for n in summarise(records(rows)).notes)


def test_numbers_of_one_cell_that_were_measured_differently_are_not_averaged():
    rows = rows_of({"a": HIGH, "b": LOW})
    rows[4]["n"] = 640
    summary = summarise(records(rows))
    assert "b" not in summary.intervals["NLL"]
    assert summary.values["NLL"]["b"] == {}
    assert any("b left out" in n for n in summary.notes)


def test_unlike_cells_are_left_out_of_effects():
    points = {f"{a} {b}": {"schedule": a, "sigma": b} for a in ("linear", "cosine") for b in ("beta", "tilde", "w")}
    six = {**FOUR, "linear w": [9.0, 9.2, 11.1, 10.0], "cosine w": [5.0, 5.2, 7.7, 6.0]}
    found = grid(six, points)
    found.results.loc[found.results["cell"] == "cosine tilde", "n"] = 640
    summary = summarise(found)
    told = {e.level: (e.matched, e.left_out) for e in summary.effects["NLL"]}
    # Of tilde one pair is left, and it stands among the differences: it is not repeated.
    assert told == {"cosine": (2, 1), "w": (2, 0)}
    kept = [np.array(six[f"cosine {b}"]) - six[f"linear {b}"] for b in ("beta", "w")]
    assert summary.effects["NLL"][0].contrast.difference == pytest.approx(np.mean(kept))
    crossed = {i.levels: i.matched for i in summary.interactions["NLL"]}
    assert crossed == {("cosine", "tilde"): 0, ("cosine", "w"): 1}


def nested(seed, train_sd, sample_sd, *, cells=("a", "b"), trains=6, samples=4, metric="FD-digits"):
    rng = np.random.default_rng(seed)
    rows = []
    for c in cells:
        for t in range(trains):
            center = rng.normal(10, train_sd)
            rows += [row(c, t, metric, rng.normal(center, sample_sd), sample_seed=s, standard_error=None)
                     for s in range(samples)]  # fmt: skip
    return records(rows)


def test_the_scatter_is_split_between_training_and_sampling():
    found = nested(3, 2.0, 0.3)
    parts = summarise(found).variance["FD-digits"]
    blocks = found.results.pivot_table(index=["cell", "train_seed"], columns="sample_seed", values="value")
    within = blocks.var(axis=1, ddof=1).mean()
    between = blocks.mean(axis=1).groupby("cell").var(ddof=1).mean()
    assert parts.sample == pytest.approx(within)
    assert parts.train == pytest.approx(between - within / 4)
    assert (parts.train_df, parts.sample_df, parts.repeats) == (10, 36, 4.0)


def test_advice_names_the_kind_of_seed_that_helps():
    training = summarise(nested(3, 2.0, 0.3)).advice
    sampling = summarise(nested(4, 0.1, 3.0)).advice
    assert any("only more train seeds help" in a for a in training)
    assert any("more sample seeds (now 4) help most" in a for a in sampling)
    one = summarise(nested(3, 2.0, 0.3, samples=1)).advice
    assert any("--sample-seeds 0-2" in a for a in one)


def test_advice_says_how_many_seeds_would_settle_what_is_open():
    found = records(rows_of({"a": HIGH, "b": [9.4, 10.9, 11.4], "c": LOW}))
    summary = summarise(found)
    d = np.array([9.4, 10.9, 11.4]) - HIGH
    level = summary.differences["NLL"]["b"].level
    expected = seeds_needed(d.mean(), d.std(ddof=1), level=level)
    assert any(f"b {expected}" in a and "80 % power" in a for a in summary.advice)
    assert not any(re.search(r"\bc \d", a) for a in summary.advice)
    assert summarise(records(rows_of({"a": HIGH, "b": LOW}))).advice == ()


def test_a_likelihood_is_one_number_a_train_seed_however_many_samples_were_drawn():
    """Sample seeds share the likelihood's stage; its copies are no replicates, and have no sampling noise."""
    rows = [
        {**r, "sample_seed": s, "stage": f"nll {r['cell']} {r['train_seed']}"}
        for r in rows_of({"a": HIGH, "b": SAME})
        for s in range(3)
    ]
    summary = summarise(records(rows))
    parts = summary.variance["NLL"]
    assert parts.sample is None
    assert (parts.train_df, parts.sample_df) == (4, 0)
    expected = np.mean([np.var(HIGH, ddof=1), np.var(SAME, ddof=1)]) - 0.01**2
    assert parts.train == pytest.approx(expected)
    assert parts.evaluation == pytest.approx(0.01**2)
    assert not any("sample seed" in a for a in summary.advice)


def test_a_coarse_measurement_is_told():
    rows = rows_of({"a": HIGH, "b": SAME})
    for r in rows:
        r["standard_error"] = 0.9
    assert any(
        "the measurement itself: raise nll_evals (--axis nll_evals=N)" in a for a in summarise(records(rows)).advice
    )


def test_the_smallest_gap_of_a_study_is_that_of_its_typical_spread():
    summary = summarise(records(rows_of(CLOSE)))
    sd = np.std(np.array(CLOSE["b"]) - CLOSE["a"], ddof=1)
    assert summary.smallest["NLL"] == pytest.approx(smallest_visible(3, sd / np.sqrt(2)))
    assert summarise(records(rows_of({"a": [1.0], "b": [2.0]}))).smallest == {}


def test_every_table_is_as_wide_as_its_head_and_the_summary_is_json():
    summary = summarise(grid(FOUR, POINTS), margin="NLL=1")
    tables = all_tables(summary)
    assert [t.title.split()[0] for t in tables] == ["study", "differences", "effects", "interactions:", "t", "where"]
    for table in tables:
        assert {len(r) for r in table.rows} == {len(table.columns)}
    flips = next(t for t in tables if t.title.startswith("t test"))
    assert {r[-1] for r in flips.rows} == {".125"}  # 2 / 2^4
    back = json.loads(json.dumps(summary.json()))
    assert back["effects"]["NLL"][0]["contrast"]["verdict"] == "better"
    assert back["train_seeds"] == [0, 1, 2, 3]


def test_a_result_is_counted_once_and_as_bad_as_its_worst_metric():
    rows = rows_of({"a": HIGH, "b": [*LOW[:2], None]}) + rows_of({"a": HIGH, "b": [None, *LOW[:2]]}, "KID")
    assert summarise(records(rows)).counts == {"a": {"done": 3}, "b": {"done": 1, "diverged": 2}}


@pytest.mark.long
@pytest.mark.parametrize("levels", [(100, 1), (20, 5)])
def test_a_study_of_500_results_takes_little_more_than_ten_times_one_of_50(levels):
    def spent(levels):
        rng = np.random.default_rng(0)
        points = {f"{a} {b}": {"schedule": str(a), "sigma": str(b)} for a in range(levels[0]) for b in range(levels[1])}
        values = {c: rng.normal(10, 1, 5).tolist() for c in points}
        found = grid(values, points)
        frames = [found.results.assign(metric=m) for m in ("FD-digits", "FD-pca16", "NLL", "NLL-unclipped")]
        found = replace(found, results=pd.concat(frames, ignore_index=True))
        start = time.process_time()
        all_tables(summarise(found))
        return time.process_time() - start

    small = (levels[0] // 10, levels[1])
    spent(small)  # what is loaded at the first use is no part of it
    assert spent(levels) < 3 * 10 * spent(small)
