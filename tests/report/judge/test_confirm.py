"""The best of several cells once more on fresh seeds: which ones, and what they alone say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.judge.confirm import confirmation, confirmed
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.foreign import records_of
from ddpmkit.report.show.tables import confirm_table

STUDY = {"a": [10.0, 11.0, 12.0], "b": [9.0, 10.2, 11.5], "c": [8.5, 10.6, 10.0], "d": [12.0, 12.5, 13.9]}
FRESH = {"a": [10.2, 11.1, 12.3, 9.0, 10.7], "c": [7.2, 8.0, 9.4, 6.1, 7.5]}


def records(cells, first=0, metric="FID", **more):
    rows = [
        {"cell": c, "train_seed": first + s, "metric": metric, "value": v, "sample_seed": 4, **more}
        for c, x in cells.items()
        for s, v in enumerate(x)
    ]
    return records_of(pd.DataFrame(rows), "demo")


def test_the_best_cell_and_the_baseline_run_on_seeds_that_the_study_did_not_see():
    plan = confirmation(summarise(records(STUDY, first=3)), 5)
    assert (plan.cells, plan.metric) == (("a", "c"), "FID")
    assert plan.train_seeds == (6, 7, 8, 9, 10)
    assert plan.sample_seeds == (4,)
    assert "c has the best mean of FID among 4 cells" in plan.note


def test_the_best_is_the_highest_where_higher_is_better():
    assert confirmation(summarise(records(STUDY, better="higher"))).cell == "d"


def test_where_the_baseline_is_best_the_next_one_is_held_against_it():
    plan = confirmation(summarise(records(STUDY), "c"))
    assert plan.cells == ("c", "b")
    assert "c itself has the best mean" in plan.note
    fresh = {"c": FRESH["c"], "b": FRESH["a"]}
    got = confirmed(plan, records(fresh, first=3))
    assert got.contrasts["FID"].verdict == "worse"
    assert got.holds


def test_a_cell_that_lost_a_seed_is_not_the_one_to_confirm():
    lost = {**STUDY, "c": [1.0, 2.0, None]}
    assert confirmation(summarise(records(lost))).cell == "b"


def test_a_cell_that_was_measured_differently_is_not_the_one_to_confirm():
    found = records(STUDY)
    found.results.loc[found.results["cell"] == "c", "n"] = 7
    assert confirmation(summarise(found)).cell == "b"


def test_the_fresh_seeds_speak_alone_and_one_contrast_is_not_adjusted():
    plan = confirmation(summarise(records(STUDY)))
    got = confirmed(plan, records(FRESH, first=3))
    test = stats.ttest_rel(FRESH["c"], FRESH["a"])
    contrast = got.contrasts["FID"]
    assert contrast.p == contrast.p_holm == pytest.approx(test.pvalue)
    assert contrast.seeds == (3, 4, 5, 6, 7)
    assert got.holds
    assert "Confirmed" in got.notes[-1]
    table = confirm_table(got)
    assert [r[:2] for r in table.rows] == [("study", "3"), ("fresh seeds", "5")]
    assert table.rows[1][-1] == "better"


def test_other_cells_that_ran_on_the_fresh_seeds_change_nothing():
    plan = confirmation(summarise(records(STUDY)))
    more = {**FRESH, "b": [9.0, 10.1, 12.0, 9.5, 9.9], "d": [13.0, 12.2, 14.0, 11.1, 12.9]}
    got, alone = confirmed(plan, records(more, first=3)), confirmed(plan, records(FRESH, first=3))
    assert got.contrasts == alone.contrasts
    assert set(got.summary.cells) == {"a", "c"}


def test_what_does_not_repeat_is_not_confirmed():
    plan = confirmation(summarise(records(STUDY)))
    got = confirmed(plan, records({"a": FRESH["a"], "c": [10.3, 11.0, 12.2, 9.1, 10.8]}, first=3))
    assert not got.holds
    assert "Not confirmed" in got.notes[-1]


@pytest.mark.long
def test_selection_of_nothing_is_confirmed_no_more_often_than_alpha():
    """Eight cells that are all alike: the winner of the study is confirmed in at most half of 5 % of the studies."""
    rng = np.random.default_rng(7)
    wins = 0
    for _ in range(60):
        numbers = rng.normal(10, 1, (8, 3))
        plan = confirmation(summarise(records({f"c{i}": x.tolist() for i, x in enumerate(numbers)})))
        fresh = rng.normal(10, 1, (2, 5))
        wins += confirmed(plan, records(dict(zip(plan.cells, fresh.tolist(), strict=True)), first=3)).holds
    assert wins <= 6  # binomial(60, 0.025) stays below 7 in all but 1 of 1000 draws


def test_a_tie_is_confirmed_as_any_other_cell():
    plan = confirmation(summarise(records({"a": STUDY["a"], "b": STUDY["a"]})))
    assert set(plan.cells) == {"a", "b"}
    assert plan.note == "b and a have the same mean of FID, and no other a better one"


@pytest.mark.parametrize("fresh", [records(FRESH, first=2), records({"a": FRESH["a"]}, first=3)])
def test_seeds_of_the_study_and_missing_cells_are_refused(fresh):
    plan = confirmation(summarise(records(STUDY)))
    with pytest.raises(DdpmkitError):
        confirmed(plan, fresh)


@pytest.mark.parametrize(
    ("study", "how"),
    [
        (records(STUDY), {"seeds": 1}),
        (records(STUDY), {"metric": "KID"}),
        (records(STUDY, metric="c2st"), {"metric": "c2st"}),
        (records(STUDY, metric="c2st"), {}),
        (records({"a": STUDY["a"]}), {}),
    ],
)
def test_what_cannot_be_confirmed_is_said(study, how):
    with pytest.raises(DdpmkitError):
        confirmation(summarise(study), **how)
