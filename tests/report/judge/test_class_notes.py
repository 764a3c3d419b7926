"""What is said of cells with labels."""

from __future__ import annotations

from ddpmkit.distances.by_class import least
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.compare import compare
from ddpmkit.report.read.conditions import select
from ddpmkit.report.read.frames import read_study


def notes(records) -> str:
    return "\n".join(summarise(records).notes)


def test_the_second_network_pass_of_guidance_is_said(labelled):
    cells = {"plain": {"conditional": False}, "0": {}, "1": {"guidance": 1.0}, "-1": {"guidance": -1.0}}
    records = read_study(labelled(cells))
    told = "Sampling: ancestral 5 steps (no labels, w = 0, w = -1: 5 evaluations an image; w = 1: 10)."
    assert told in notes(records)
    assert "Sampling: ancestral 5 steps." in notes(select(records, ["guidance=0"]))


def test_guidance_is_explained_where_there_is_some_and_a_likelihood_where_one_was_asked_for(labelled):
    plain = notes(read_study(labelled({"a": {}}, name="plain", nll=False)))
    assert "Conditional cells: labels of samples data, no guidance." in plain
    assert "diffusers" not in plain
    assert "NLL-given-class" not in plain
    both = notes(read_study(labelled({"a": {}, "b": {"guidance": 2.0}}, name="both")))
    assert "guidance w = 0, 2, eps = (1 + w) eps(x_t, y) - w eps(x_t)" in both
    assert "NLL-given-class is -log p(x | y)" in both


def test_distances_of_classes_that_are_missing_are_explained(labelled):
    short = read_study(labelled({"a": {}}, name="short", fd=False, n=41))
    assert least(2) == 6
    told = "FD-x by class needs 6 images of a class on both sides: of the classes without it the largest has 21."
    assert told in notes(short)
    assert "by class needs" not in notes(read_study(labelled({"a": {}}, name="enough")))
    other = read_study(labelled({"a": {}}, name="other", data="e" * 64, fd=False))
    both = notes(compare([short, other]))
    assert told in both
    assert "FD-x (other) by class needs 6" in both
