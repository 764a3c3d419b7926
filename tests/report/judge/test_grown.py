"""A study to which train seeds were added: its verdicts are anytime-valid, in every form of the report."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from ddpmkit import DdpmkitError
from ddpmkit.report.judge.advice import to_settle
from ddpmkit.report.judge.grown import in_seeds
from ddpmkit.report.judge.settled import look
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.compare import compare
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.show.check import differences
from ddpmkit.report.show.csv import to_wide
from ddpmkit.report.show.html import to_html
from ddpmkit.report.show.json import to_json
from ddpmkit.report.show.latex import to_latex
from ddpmkit.report.show.markdown import to_markdown
from ddpmkit.report.show.tables import all_tables, contrast_table
from ddpmkit.report.show.words import findings
from ddpmkit.statistics import Pairs, half_width, judge
from ddpmkit.study import growth
from ddpmkit.study.look import Look


def grown_study(maker, seeds=range(8), by=("train seeds 2-7",), before=(0, 1), **more):
    folder = maker.write(schedules=("linear", "cosine", "sigmoid"), seeds=tuple(seeds), **more)
    growth.add(folder, by, before, seeds)
    return folder


def test_the_verdict_and_the_interval_are_those_of_the_e_value(maker):
    folder = grown_study(maker, seeds=range(3), before=(0,))
    grown = summarise(read_study(folder))
    (folder / growth.NAME).unlink()
    fixed = summarise(read_study(folder))
    assert (grown.grown, fixed.grown) == (True, False)
    before, now = (s.differences["NLL"]["cosine"] for s in (fixed, grown))
    assert (before.verdict, now.verdict) == ("better", "inconclusive")  # three seeds never settle anything
    assert (now.low, now.high, now.p_holm) == (before.low, before.high, before.p_holm)
    assert now.interval == (None, None)
    assert before.interval == (before.low, before.high)
    assert before.anytime.verdict == now.anytime.verdict == "inconclusive"
    assert (before.anytime.stands, now.anytime.stands) == (False, True)


def test_with_enough_seeds_it_is_settled_and_the_tables_say_by_what(maker):
    summary = summarise(read_study(grown_study(maker)))
    c = summary.differences["NLL"]["cosine"]
    assert c.verdict == "better"
    assert c.anytime.needed == 40
    assert c.interval == (c.anytime.low, c.anytime.high)
    assert c.anytime.low < c.low < c.high < c.anytime.high < 0
    table = contrast_table(summary)
    assert table.columns == ("cell", "metric", "difference", "e (needed)", "Holm p, n fixed", "seed corr.", "verdict")
    (row,) = [r for r in table.rows if r[:2] == ("cosine", "NLL")]
    assert row[3] == ">1000 (40)"
    assert row[2].split(" [")[1].startswith(f"{c.anytime.low:+.2f}"[:4])
    assert row[table.lead[1]] == "better"
    assert [f.groups[0][0] for f in findings(summary) if f.metric == "NLL"] == ["better"]


@pytest.mark.parametrize("form", [to_markdown, to_latex, to_json])
def test_every_form_says_it(maker, form):
    text = form(summarise(read_study(grown_study(maker)))).replace("{-}", "-").replace("{*}", "*")
    assert "e (needed)" in text
    assert "Train seeds were added to this study" in text
    assert "Differences: paired t test" not in text


def test_the_page_says_it(maker):
    records = read_study(grown_study(maker))
    summary = summarise(records)
    page = to_html(records, summary, all_tables(summary))
    assert "e (needed)" in page
    assert "(40)" in page
    assert "Train seeds were added to this study" in page


def test_json_and_wide_csv_hold_e_values_and_sequences_grown_or_not(maker):
    for folder in (grown_study(maker), maker.write(name="whole", seeds=range(8))):
        records = read_study(folder)
        summary = summarise(records)
        told = json.loads(to_json(summary))["differences"]["NLL"]["cosine"]["anytime"]
        c = summary.differences["NLL"]["cosine"]
        assert told == {
            "e": c.anytime.e, "needed": c.anytime.needed, "low": c.anytime.low, "high": c.anytime.high,
            "verdict": "better", "stands": summary.grown,
        }  # fmt: skip
        row = next(r for r in csv.DictReader(io.StringIO(to_wide(records, summary))) if r["cell"] == "cosine")
        assert float(row["NLL e"]) == pytest.approx(c.anytime.e, rel=0.01)
        assert float(row["NLL sequence low"]) == pytest.approx(c.anytime.low, abs=0.01)
        assert row["NLL anytime verdict"] == "better"
        base = next(csv.DictReader(io.StringIO(to_wide(records, summary))))
        assert base["NLL e"] == base["NLL sequence high"] == ""


def test_a_study_that_did_not_grow_in_seeds_is_reported_as_ever(maker):
    folder = maker.write(seeds=range(4))
    plain = summarise(read_study(folder))
    growth.add(folder, ["metrics kid"], (0, 1, 2, 3), (0, 1, 2, 3))
    more = summarise(read_study(folder))
    assert not more.grown
    assert contrast_table(more) == contrast_table(plain)
    assert contrast_table(plain).columns[3] == "Holm p"


def test_what_can_not_be_read_counts_as_grown(maker):
    folder = maker.write(seeds=range(4))
    (folder / growth.NAME).write_text("{")
    assert summarise(read_study(folder)).grown
    assert in_seeds([growth.UNREADABLE])


def test_several_studies_are_grown_when_one_is(maker):
    one, other = grown_study(maker), maker.write(name="other", seeds=range(8), schedules=("linear",))
    assert summarise(compare([read_study(other), read_study(one)])).grown
    assert not summarise(read_study(other)).grown


def test_it_is_said_below_how_many_seeds_no_verdict_can_fall(maker):
    said = " ".join(summarise(read_study(grown_study(maker, seeds=range(3), before=(0,)))).notes)
    assert "no verdict can fall below 6 train seeds, however large the gap, and there are 3: since seeds were" in said
    assert half_width(5, 1 / 40) == float("inf") > half_width(6, 1 / 40)
    assert "no verdict can fall" not in " ".join(summarise(read_study(grown_study(maker, name="more"))).notes)


def test_the_note_on_margins_is_that_of_the_sequence(maker):
    records = read_study(grown_study(maker))
    summary = summarise(records, margin="NLL=5")
    (note,) = [n for n in summary.notes if n.startswith("Margin set beforehand")]
    assert "the confidence sequence lies within" in note
    assert "one-sided" not in note


def test_advice_counts_seeds_by_the_sequence():
    d = (1.0, -0.2, 0.9, 0.1)
    pairs = Pairs((0, 1, 2, 3), tuple(9 + x for x in d), (9.0,) * 4)
    c = judge({0: pairs}, grown=True)[0]
    (said,) = to_settle({"b": (c, 0.6)})
    n = next(n for n in range(2, 99) if half_width(n, 0.05) * 0.6 <= c.difference)
    assert f"b {n} (were the gaps these)" in said
    wide = judge({0: pairs}, grown=True, margin=3.0)[0]
    assert (
        f"b {next(n for n in range(2, 99) if half_width(n, 0.05) * 0.6 <= 3 - c.difference)} "
        in (to_settle({"b": (wide, 0.6)})[0])
    )


def test_what_grew_is_not_asked_for_more_seeds_where_a_seed_was_lost(maker):
    # the e-value is reached; that it may not be called better is for want of a seed that diverged, not of more seeds
    folder = grown_study(maker, failed=(("cosine", 0),), error="nan")
    summary = summarise(read_study(folder))
    assert summary.differences["NLL"]["cosine"].verdict == "inconclusive"
    assert summary.differences["NLL"]["cosine"].anytime.e > 40
    assert not any("NLL" in a and "cosine" in a and "to settle" in a for a in summary.advice)


def test_a_look_says_what_is_open_and_what_no_seed_settles(maker):
    found = look(summarise(read_study(grown_study(maker))), "NLL")
    assert found == Look("NLL", "linear", (), (), 6)
    few = read_study(grown_study(maker, name="few", seeds=range(3), before=(0,)))
    assert look(summarise(few)) == Look("FD-digits", "linear", ("cosine", "sigmoid"), (), 6)
    one = summarise(read_study(grown_study(maker, name="one", seeds=(0,), before=())))
    assert look(one, "NLL") == Look("NLL", "linear", ("cosine", "sigmoid"), (), 6)
    # a verdict that is withheld for want of a seed stays withheld, so no seeds are spent on it
    apart = [type(maker)(maker.out.parent / name) for name in ("broken", "base")]  # a stage that is done stays done
    broken = grown_study(apart[0], name="broken", failed=(("cosine", 0),), error="nan")
    assert look(summarise(read_study(broken)), "NLL") == Look("NLL", "linear", (), ("cosine",), 6)
    base = grown_study(apart[1], name="base", seeds=range(3), before=(0,), failed=(("linear", 0),), error="nan")
    assert look(summarise(read_study(base)), "NLL").stuck == ("cosine", "sigmoid")


def test_a_tie_at_one_seed_is_open_and_gets_another(maker):
    one = read_study(grown_study(maker, name="one", seeds=(0,), before=()))
    tied = replace(one, results=one.results.assign(value=0.85))
    assert look(summarise(tied), "NLL") == Look("NLL", "linear", ("cosine", "sigmoid"), (), 6)


@pytest.mark.parametrize(("metric", "said"), [("FID", "is not in the study"), ("copy", "is not in the study")])
def test_a_look_needs_a_metric_that_ranks(maker, metric, said):
    with pytest.raises(DdpmkitError, match=said):
        look(summarise(read_study(grown_study(maker))), metric)
    with pytest.raises(DdpmkitError, match="no differences to settle"):
        look(summarise(read_study(maker.write(schedules=("linear",), name="alone"))))


def test_a_report_from_before_e_values_is_not_stale(maker):
    folder = maker.write(seeds=range(4))
    summary = summarise(read_study(folder))
    report = json.loads(to_json(summary))
    for contrasts in report["differences"].values():
        for contrast in contrasts.values():
            del contrast["anytime"]
    (folder / "report.json").write_text(json.dumps(report))
    assert differences(folder, folder) == []
    report["differences"]["NLL"]["cosine"]["verdict"] = "worse"
    (folder / "report.json").write_text(json.dumps(report))
    assert "differences" in differences(folder, folder)[0].message


def test_a_verdict_that_is_open_for_the_growth_alone_is_named(maker):
    folder = grown_study(maker, seeds=range(3), before=(0,))
    grown = summarise(read_study(folder))
    (said,) = [n for n in grown.notes if n.startswith("Inconclusive because train seeds were added")]
    assert "NLL cosine" in said
    (folder / growth.NAME).unlink()
    assert not [n for n in summarise(read_study(folder)).notes if n.startswith("Inconclusive because")]


def test_the_smallest_gap_of_a_grown_study_is_that_of_the_e_value(maker):
    folder = grown_study(maker)
    grown = summarise(read_study(folder)).smallest["NLL"]
    (folder / growth.NAME).unlink()
    assert grown > summarise(read_study(folder)).smallest["NLL"]
    assert "NLL" not in summarise(read_study(grown_study(maker, seeds=range(3), before=(0,), name="few"))).smallest
