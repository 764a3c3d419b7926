"""A reference as one of several studies has it: under its own study's columns, and under no other."""

from __future__ import annotations

from ddpmkit.report.read.reference import Reference
from ddpmkit.study.records import RefRecord

RECORD = RefRecord.read({"floors": {"FD-x": 1.9, "KID": 0.1}, "baselines": {"uniform": 4.0}, "n_floor": 9})


def test_alone_it_stands_under_its_own_names():
    alone = Reference(RECORD)
    assert alone.record.floors == {"FD-x": 1.9, "KID": 0.1}
    assert (alone.study, alone.baselines_under) == ("", "NLL")


def test_of_several_studies_it_goes_with_the_columns_of_its_own():
    here = Reference(RECORD).under({"FD-x": "FD-x (B)", "NLL": "NLL (B)"}, "B")
    assert here.record.floors == {"FD-x (B)": 1.9}  # its study has no KID: neither has it
    assert (here.study, here.baselines_under) == ("B", "NLL (B)")
    assert here.record.baselines == {"uniform": 4.0}


def test_without_a_likelihood_there_is_no_column_for_plain_models():
    assert Reference(RECORD).under({"FD-x": "FD-x"}, "B").baselines_under is None
