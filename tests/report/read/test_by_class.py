"""Rows of classes, and what labels of samples mean to the numbers of all of them."""

from __future__ import annotations

from ddpmkit.report.judge.summarise import summarise
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
