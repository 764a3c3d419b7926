"""Results made elsewhere: read into records, judged as any study, and refused in plain words where they can't be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.foreign import read_foreign, records_of
from ddpmkit.report.show.tables import all_tables

A, B = [10.0, 11.0, 12.5], [9.0, 10.4, 11.1]


def csv(tmp_path, text, name="theirs.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def tidy(cells=None, metric="FID", head="cell,train_seed,metric,value"):
    rows = [f"{c},{s},{metric},{v}" for c, x in (cells or {"a": A, "b": B}).items() for s, v in enumerate(x)]
    return "\n".join([head, *rows]) + "\n"


def test_the_statistics_serve_them_as_they_serve_a_study(tmp_path):
    summary = summarise(read_foreign(csv(tmp_path, tidy())))
    got = summary.differences["FID"]["b"]
    assert got.p == pytest.approx(stats.ttest_rel(B, A).pvalue)
    assert got.difference == pytest.approx(np.mean(np.array(B) - A))
    assert (summary.study, summary.cells, summary.train_seeds, summary.sample_seeds) == (
        "theirs", ("a", "b"), (0, 1, 2), (0,),
    )  # fmt: skip
    assert all(all_tables(summary))


def test_axes_make_the_cells_where_no_column_names_them(tmp_path):
    lines = ["loss;beta;train_seed;metric;value;machine"]
    lines += [f"{a};{b};{s};FID;{10 + s * s + i};one" for i, a in enumerate("xy") for b in (0.1, 0.2) for s in range(3)]
    records = read_foreign(csv(tmp_path, "\n".join(lines)))  # a semicolon, and a column that does not vary
    assert [c["point"] for c in records.plan["cells"]] == [{"loss": a, "beta": b} for a in "xy" for b in ("0.1", "0.2")]
    summary = summarise(records)
    assert summary.cells == ("x, 0.1", "x, 0.2", "y, 0.1", "y, 0.2")
    assert [(e.axis, e.level, e.matched) for e in summary.effects["FID"]] == [("loss", "y", 2), ("beta", "0.2", 2)]


def test_named_axes_are_taken_in_that_order(tmp_path):
    text = "a,b,train_seed,metric,value\n1,2,0,FID,3\n1,3,0,FID,4\n"
    assert [c["label"] for c in read_foreign(csv(tmp_path, text), axes=["b", "a"]).plan["cells"]] == ["2, 1", "3, 1"]


def test_a_column_that_varies_within_a_cell_is_no_axis(tmp_path):
    text = "cell,arch,host,train_seed,metric,value\na,x,h1,0,FID,1\na,x,h2,1,FID,2\nb,y,h1,0,FID,3\nb,y,h2,1,FID,4\n"
    records = read_foreign(csv(tmp_path, text))
    assert [c["point"] for c in records.plan["cells"]] == [{"arch": "x"}, {"arch": "y"}]
    with pytest.raises(DdpmkitError, match="'host' varies within a cell"):
        read_foreign(csv(tmp_path, text), axes=["host"])


def test_columns_may_have_other_names(tmp_path):
    text = tidy(head="model,seed,metric,score")
    records = read_foreign(csv(tmp_path, text), columns={"model": "cell", "seed": "train_seed", "score": "value"})
    assert summarise(records).differences["FID"]["b"].n == 3


def test_sample_seeds_are_averaged_and_errors_split_off(tmp_path):
    lines = ["cell,train_seed,sample_seed,metric,value,standard_error"]
    lines += [f"{c},{t},{s},FID,{10 * t + s},0.1" for c in "ab" for t in range(3) for s in range(2)]
    summary = summarise(read_foreign(csv(tmp_path, "\n".join(lines))))
    assert summary.values["FID"]["a"] == {0: 0.5, 1: 10.5, 2: 20.5}
    assert summary.variance["FID"].sample == pytest.approx(0.5 - 0.01)
    assert summary.variance["FID"].evaluation == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("value", "status", "state"),
    [
        ("", "", "failed"),
        ("nan", "", "diverged"),
        ("inf", "", "diverged"),
        ("-inf", "done", "diverged"),
        ("5.0", "failed", "failed"),
        ("", "Diverged", "diverged"),
        ("5.0", "", "done"),
        ("5.0", "done", "done"),
    ],
)
def test_what_did_not_end_is_counted_and_never_better(tmp_path, value, status, state):
    lines = ["cell,train_seed,metric,value,status"]
    lines += [f"{c},{s},FID,{v},done" for c, x in {"a": A, "b": [1.0, 2.1, 3.3]}.items() for s, v in enumerate(x)]
    summary = summarise(
        read_foreign(csv(tmp_path, "\n".join([*lines, f"b,3,FID,{value},{status}", "a,3,FID,11,done"])))
    )
    assert summary.counts["b"] == ({"done": 4} if state == "done" else {"done": 3, state: 1})
    verdict = summary.differences["FID"]["b"].verdict
    assert (verdict == "better") == (state == "done")


def test_their_direction_and_meaning_are_heard(tmp_path):
    lines = ["cell,train_seed,metric,value,better,n"]
    lines += [f"{c},{s},reward,{v},higher,{n}" for c, n, x in (("a", 10, A), ("b", 10, B), ("c", 50, B))
              for s, v in enumerate(x)]  # fmt: skip
    summary = summarise(read_foreign(csv(tmp_path, "\n".join(lines))))
    assert summary.directions == {"reward": "higher"}
    assert summary.differences["reward"]["c"].verdict == "not comparable"
    assert summary.differences["reward"]["b"].n == 3


def test_names_stay_as_they_are(tmp_path):
    summary = summarise(read_foreign(csv(tmp_path, tidy({"NA": A, "null": B, "007": B, '"x, y"': A}))))
    assert summary.cells == ("NA", "null", "007", "x, y")


def test_a_mark_at_the_start_of_the_file_and_spaces_in_the_head_do_no_harm(tmp_path):
    path = csv(tmp_path, "\ufeff" + tidy(head="cell, train_seed ,metric, value"))
    assert summarise(read_foreign(path)).cells == ("a", "b")


def test_the_projects_own_results_come_out_the_same():
    own = Path(__file__).parents[3] / "results/reference/digits-schedules/results.csv"
    summary = summarise(read_foreign(own))
    assert summary.cells == ("linear", "cosine", "sigmoid")
    assert summary.points["cosine"] == {"schedule": "cosine"}
    frame = pd.read_csv(own)
    by = frame[frame["metric"] == "NLL"].pivot_table(index="train_seed", columns="cell", values="value")
    test = stats.ttest_rel(by["cosine"], by["linear"])
    assert summary.differences["NLL"]["cosine"].p == pytest.approx(test.pvalue)


def test_a_frame_does_as_well_as_a_file():
    frame = pd.DataFrame(
        {"cell": ["a", "a", "b", "b"], "train_seed": [0, 1, 0, 1], "metric": "FID", "value": [1, 2, 4, 5.5]}
    )
    before = frame.copy()
    assert summarise(records_of(frame)).differences["FID"]["b"].difference == pytest.approx(3.25)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("cell,metric,value\na,FID,1\n", "no column 'train_seed'", "columns: cell, metric, value"),
        ("cell,seed,metric,value\na,0,FID,1\n", "no column 'train_seed'", '{"seed": "train_seed"}'),
        ("cell,train_seed,value\na,0,1\n", "no column 'metric'", "columns:"),
        ("cell,train_seed,metric\na,0,FID\n", "no column 'value'", "columns:"),
        ("a,b\n1,2\n", "no column 'train_seed' and no column 'metric' and no column 'value'", "columns: a, b"),
        ("train_seed,metric,value\n0,FID,1\n1,FID,2\n", "nothing says what is compared", "'cell'"),
        ("cell,train_seed,metric,value\n", "no result", "one row"),
        ("cell,train_seed,metric,value\na,x,FID,1\n", "row 2: train_seed is 'x'", "whole number"),
        ("cell,train_seed,metric,value\na,0,FID,1\na,0.5,FID,1\n", "row 3: train_seed is '0.5'", "whole number"),
        ("cell,train_seed,metric,value\na,,FID,1\n", "row 2: train_seed is ''", "whole number"),
        ("cell,train_seed,metric,value\na,0,FID,low\n", "row 2: value is 'low', no number", "0.5"),
        ("cell,train_seed,metric,value,n\na,0,FID,1,many\n", "row 2: n is 'many'", "0.5"),
        ("cell,train_seed,metric,value,status\na,0,FID,1,ok\n", "unknown status 'ok'", "done"),
        ("cell,train_seed,metric,value\na,0,FID,1\na,0,FID,2\n", "two rows for cell a, train_seed 0", "sample_seed"),
        ("cell,train_seed,metric,value\n,0,FID,1\n", "row 2 has no cell", "fill"),
        ("cell,train_seed,metric,value\na,0,,1\n", "row 2 has no metric", "fill"),
        ("cell,train_seed,metric,value\na,0,FID,1,9,9\n1,2\n", "longer than its head", "one name"),
        ("cell,train_seed,metric,value\na,0,FID,1\na,0,FID,1,9,9\n", "is no CSV", "head"),
        ("", "is no CSV", "head"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_two_lines(tmp_path, text, message, hint):
    with pytest.raises(DdpmkitError) as caught:
        read_foreign(csv(tmp_path, text))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_no_file_and_bad_bytes_and_unknown_columns_are_plain_errors(tmp_path):
    with pytest.raises(DdpmkitError, match="there is no file"):
        read_foreign(tmp_path / "nowhere.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DdpmkitError, match="is no CSV"):
        read_foreign(tmp_path / "bytes.csv")
    for wrong in ({"axes": ["cel"]}, {"columns": {"cel": "cell"}}, {"axes": ["metric"]}):
        with pytest.raises(DdpmkitError):
            read_foreign(csv(tmp_path, tidy()), **wrong)
