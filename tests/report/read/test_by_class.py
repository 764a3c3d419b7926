"""Rows of classes, and what labels of samples mean to the numbers of all of them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from ddpmkit import files
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.compare import compare
from ddpmkit.report.read.foreign import records_of
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.show.tables import class_table


def test_classes_in_turn_are_measured_otherwise_than_classes_of_the_data(labelled):
    """FD, precision and recall of balanced samples are a measure of the classes' shares too."""
    records = read_study(labelled({"data": {}, "balanced": {"sample_labels": "balanced"}, "told nobody": {
        "sample_labels": "balanced", "guidance": -1.0}}))  # fmt: skip
    summary = summarise(records)
    assert summary.differences["FD-x"]["balanced"].verdict == "not comparable"
    assert summary.differences["FD-x"]["told nobody"].verdict != "not comparable"
    assert summary.differences["NLL-given-class"]["balanced"].verdict != "not comparable"
    (note,) = (n for n in summary.notes if "the classes of these samples are drawn in turn" in n)
    assert note.startswith("balanced: ")
    assert any("FD-x: not compared with data, measured differently: balanced (labels=balanced)" in n
               for n in summary.notes)  # fmt: skip
    alone = summarise(read_study(labelled({"data": {}}, name="alone")))
    assert not any("drawn in turn" in n for n in alone.notes)


def test_the_numbers_of_one_class_know_no_shares(labelled):
    frame = read_study(labelled({"data": {}, "balanced": {"sample_labels": "balanced"}})).results
    rows = frame[frame["metric"] == "FD-x-debiased class 1"]
    assert set(rows["cell"]) == {"data", "balanced"}
    assert rows["definition"].nunique() == 1


def test_a_metric_made_elsewhere_may_be_called_after_a_class():
    names = ("accuracy class 3", "FD-x-debiased class 1", "near-copies class 0", "worst class 1")
    rows = [
        {"cell": cell, "train_seed": seed, "metric": m, "value": seed + i}
        for m in names
        for i, cell in enumerate("ab")
        for seed in (0, 1)
    ]
    summary = summarise(records_of(pd.DataFrame(rows)))
    assert summary.metrics == names
    assert summary.by_class == {}


def test_rows_of_classes_are_known_in_a_study_and_in_its_csv(labelled):
    study = read_study(labelled({"a": {}, "b": {"guidance": 2.0}}))
    for records in (study, records_of(study.results, axes=["guidance"])):
        summary = summarise(records)
        assert set(summary.metrics) == {"FD-x", "NLL-given-class"}
        assert set(summary.by_class) == {"FD-x-debiased", "near-copies"}
        assert set(summary.by_class["FD-x-debiased"]["b"]) == {0, 1}
        assert not any("class 1" in note for note in summary.notes)


def test_two_studies_of_the_same_data_share_the_columns_of_classes(labelled):
    """The shares of classes that are drawn differ from study to study; what is measured of each does not."""

    def three_to_one(_):
        return (np.arange(40) % 4 == 0).astype(np.int64)

    a, b = read_study(labelled({"x": {}}, name="a")), read_study(labelled({"y": {}}, name="b", labels=three_to_one))
    table = class_table(summarise(compare([a, b])))
    assert table.columns[3:] == ("FD-x-debiased ↓", "near-copies")
    assert [row[:3] for row in table.rows] == [
        ("a: x", "0", "20"), ("a: x", "1", "20"), ("b: y", "0", "30"), ("b: y", "1", "10"),
        ("real, held out", "0", "30"), ("real, held out", "1", "30"),
    ]  # fmt: skip
    assert all(row[3] for row in table.rows[:4])
    assert table.references == 2


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_held_out_images_stand_under_the_column_of_their_own_study(labelled, order):
    more = ({"class": 0, "n": 50, "near": 0.6}, {"class": 1, "n": 50, "near": 0.7})
    both = {
        "a": read_study(labelled({"x": {}}, name="a")),
        "b": read_study(labelled({"y": {}}, name="b", data="e" * 64, heldout=more)),
    }
    table = class_table(summarise(compare([both[name] for name in order])))
    second = order[1]
    assert table.columns[3:] == (
        "FD-x-debiased ↓", "near-copies", f"FD-x-debiased ({second}) ↓", f"near-copies ({second})",
    )  # fmt: skip
    held = [row for row in table.rows if row[0].startswith("real, held out")]
    images, near = {"a": "30", "b": "50"}, {"a": ("10.0%", "20.0%"), "b": ("60.0%", "70.0%")}
    for column, name, rows in ((4, order[0], held[:2]), (6, second, held[2:])):
        assert [(row[1], row[2], row[column]) for row in rows] == [
            (f"{c}", images[name], near[name][c]) for c in (0, 1)
        ]  # fmt: skip
    assert len(held) == table.references == 4
    assert {row[0] for row in held} == {"real, held out", f"real, held out ({second})"}


def test_two_studies_whose_held_out_images_differ_have_a_row_each(labelled):
    more = ({"class": 0, "n": 50, "near": 0.6},)
    a, b = read_study(labelled({"x": {}}, name="a")), read_study(labelled({"y": {}}, name="b", heldout=more))
    table = class_table(summarise(compare([a, b])))
    assert [(r[0], r[1], r[2], r[4]) for r in table.rows[4:]] == [
        ("real, held out", "0", "30", "10.0%"), ("real, held out", "1", "30", "20.0%"),
        ("real, held out (b)", "0", "50", "60.0%"),
    ]  # fmt: skip


def test_the_definition_of_one_class_keeps_what_must_agree(labelled):
    frame = read_study(labelled({"x": {}})).results
    said = set(frame.loc[frame["metric"] == "FD-x-debiased class 1", "definition"])
    assert said == {"FD-x-debiased class 1 ref=test extractor=ffffffff data=dddddddd K=17"}


def test_held_out_images_have_a_row_with_and_one_without_mirror_images(labelled, maker):
    """Half of a study's trainings saw mirrored images: what is near them is held against other training images."""
    folder = labelled({"flip=false": {}, "flip=true": {"flip": True}})
    plan = json.loads((folder / "plan.json").read_text())
    (ref,) = (s for s in plan["stages"] if s["kind"] == "ref")
    record = files.read_json(folder.parents[1] / "store/ref" / ref["id"][:2] / ref["id"] / "out/result.json")
    more = [{**row, "near": row["near"] + 0.4} for row in record["heldout_by_class"]]
    mirrored = maker.stage("ref", "mirrored", {**record, "heldout_by_class": more})
    plan["stages"].append({"kind": "ref", "id": mirrored, "label": "mirrored", "spec": {"flip": True}})
    (folder / "plan.json").write_text(json.dumps(plan))
    rows = [row for row in class_table(summarise(read_study(folder))).rows if row[0].startswith("real")]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("real, held out", "0", "10.0%"),
        ("real, held out", "1", "20.0%"),
        ("real, held out, to mirror images too", "0", "50.0%"),
        ("real, held out, to mirror images too", "1", "60.0%"),
    ]


def test_classes_are_called_by_their_names(labelled):
    folder = labelled({"a": {}})
    plan = json.loads((folder / "plan.json").read_text())
    for names, told in ((["swan", "ear"], ["0 swan", "1 ear"]), (["0", "1"], ["0", "1"]), (["swan"], ["0 swan", "1"])):
        (folder / "plan.json").write_text(json.dumps({**plan, "classes": names}))
        table = class_table(summarise(read_study(folder)))
        assert [row[1] for row in table.rows if row[0] == "a"] == told
    swans, others = (
        dataclasses.replace(read_study(folder), plan={**plan, "classes": names, "study": name})
        for names, name in ((["swan", "ear"], "s"), (["cat", "dog"], "t"))
    )
    assert summarise(compare([swans, others])).classes == ()  # a label of two data sets has no one name
    assert summarise(compare([swans, swans])).classes == ("swan", "ear")


def test_a_number_that_lacks_a_word_of_the_others_definition_says_which(labelled):
    records = read_study(labelled({"balanced": {"sample_labels": "balanced"}, "data": {}}))
    notes = summarise(records).notes
    assert any("measured differently: data (without labels=balanced)" in n for n in notes)


def test_a_perfect_model_stands_below_the_distances(labelled):
    """The bias of the few real images of a class is no distance of the samples."""
    perfect = ({"class": 0, "n": 40, "fd": 2.19}, {"class": 1, "n": 400, "fd": 0.22})
    a = read_study(labelled({"x": {}}, name="a", perfect=perfect))
    table = class_table(summarise(a))
    assert [row[:4] for row in table.rows[2:4]] == [
        ("perfect model", "0", "40", "2.19"), ("perfect model", "1", "400", "0.22"),
    ]  # fmt: skip
    assert [row[4] for row in table.rows[2:]] == ["", "", "10.0%", "20.0%"]
    assert table.references == 4
    b = read_study(labelled({"y": {}}, name="b", perfect=[{**row, "fd": row["fd"] + 1} for row in perfect]))
    both = class_table(summarise(compare([a, b])))
    assert [(row[0], row[3]) for row in both.rows if row[0].startswith("perfect")] == [
        ("perfect model", "2.19"), ("perfect model", "0.22"),
        ("perfect model (b)", "3.19"), ("perfect model (b)", "1.22"),
    ]  # fmt: skip
    apart = read_study(labelled({"y": {}}, name="c", data="e" * 64, perfect=perfect))
    under = class_table(summarise(compare([a, apart])))
    assert [[bool(x) for x in row[3:]] for row in under.rows if row[0] == "perfect model"] == [
        [True, False, True, False]
    ] * 2  # fmt: skip
