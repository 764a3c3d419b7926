"""The records of a study's growths: what is written is read, and a mark is not lost to damage."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ddpmkit import files
from ddpmkit.study import growth


def test_a_study_that_never_grew_has_no_records(tmp_path: Path) -> None:
    assert growth.of(tmp_path) == ()
    assert growth.of(str(tmp_path / "nowhere")) == ()
    assert growth.told(tmp_path) == []


def test_growths_are_read_back_oldest_first(tmp_path: Path) -> None:
    first = growth.add(tmp_path, ["schedules sigmoid"], (0, 1), (0, 1))
    second = growth.add(tmp_path, ["train seeds 2-4"], (0, 1), (0, 1, 2, 3, 4))
    assert growth.of(tmp_path) == (first, second)
    assert (second.seeds_before, second.seeds_after) == ((0, 1), (0, 1, 2, 3, 4))
    assert datetime.fromisoformat(second.when).utcoffset() == timedelta(0)
    day, clock = second.when.removesuffix("+00:00").split("T")
    assert growth.told(tmp_path)[1] == f"The study grew on {day} {clock} UTC by train seeds 2-4"


def test_a_growth_that_was_cut_short_is_not_written_twice(tmp_path: Path) -> None:
    for _ in range(2):  # stopped between the record and the plan, and asked for again
        growth.add(tmp_path, ["train seeds 2"], (0, 1), (0, 1, 2))
    assert len(growth.of(tmp_path)) == 1
    growth.add(tmp_path, ["train seeds 3"], (0, 1, 2), (0, 1, 2, 3))
    assert len(growth.of(tmp_path)) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"grown": 3}', '{"grown": [], "seal": "x"}'])
def test_a_damaged_file_keeps_the_mark(content: str, tmp_path: Path) -> None:
    (tmp_path / growth.NAME).write_text(content)
    assert growth.of(tmp_path) == (growth.UNREADABLE,)
    assert growth.told(tmp_path) == ["The study grew, and its records can't be read"]
    growth.add(tmp_path, ["train seeds 2"], (0, 1), (0, 1, 2))
    assert [g.what for g in growth.of(tmp_path)] == [growth.UNREADABLE.what, ("train seeds 2",)]


def test_a_record_that_is_none_keeps_the_others(tmp_path: Path) -> None:
    growth.add(tmp_path, ["train seeds 2"], (0, 1), (0, 1, 2))
    (whole,) = json.loads((tmp_path / growth.NAME).read_text())["grown"]
    (tmp_path / growth.NAME).write_text(json.dumps({"grown": [whole, {"when": 3}]}))
    assert [bool(g.when) for g in growth.of(tmp_path)] == [True, False]


def test_records_that_were_deleted_leave_their_mark(tmp_path: Path) -> None:
    """Or a study whose seeds were added after a look would pass for one that was planned so."""
    growth.add(tmp_path, ["train seeds 1"], [0], [0, 1])
    files.write_sealed(tmp_path / "plan.json", {"grown": True})
    assert growth.of(tmp_path)[0].what == ("train seeds 1",)
    (tmp_path / "growth.json").unlink()
    assert growth.of(tmp_path) == (growth.UNREADABLE,)
    files.write_sealed(tmp_path / "plan.json", {})
    assert growth.of(tmp_path) == ()
