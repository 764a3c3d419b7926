"""Rows of classes, and what labels of samples mean to the numbers of all of them."""

from __future__ import annotations

import pandas as pd

from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.foreign import records_of
from ddpmkit.report.read.frames import read_study


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
