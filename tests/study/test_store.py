"""The store: files are the truth, a stage is done when its output is there, and another format is refused."""

import os
import time

import pytest

from ddpmkit import files
from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.study.store import Store, find_study, newest_study

ID = "ab12" + "0" * 60


def test_a_stage_lives_in_a_folder_named_by_its_hash(tmp_path):
    assert Store(tmp_path).folder("train", ID) == tmp_path / "store" / "train" / "ab" / ID


def test_a_new_store_is_marked_with_its_format(tmp_path):
    store = Store(tmp_path / "deep" / "results")
    store.prepare()
    store.prepare()  # an existing one is fine
    assert (store.root / "FORMAT").read_text() == "1\n"


@pytest.mark.parametrize("found", ["2", "", "garbage"])
def test_a_store_of_another_format_is_refused_and_left_alone(tmp_path, found):
    store = Store(tmp_path)
    store.root.mkdir()
    (store.root / "FORMAT").write_text(found)
    with pytest.raises(DdpmkitError, match="has format"):
        store.prepare()
    assert (store.root / "FORMAT").read_text() == found


def test_a_place_that_can_not_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DdpmkitError, match="can't write to") as caught:
        Store(tmp_path / "file").prepare()
    assert caught.value.hint


def test_a_stage_is_done_when_its_output_is_committed(tmp_path):
    store = Store(tmp_path)
    folder = store.folder("nll", ID)
    assert not store.done("nll", ID)
    files.write_json(folder / "status.json", {"state": "done"})
    assert not store.done("nll", ID)  # a word is no output
    assert store.result("nll", ID) == {}
    files.commit_folder(folder / "out", {"result.json": b'{"total": 1.5}'}, {})
    assert store.done("nll", ID)
    assert store.result("nll", ID) == {"total": 1.5}


def test_a_status_that_is_missing_or_garbled_is_empty(tmp_path):
    store = Store(tmp_path)
    assert store.status("nll", ID) == {}
    path = store.folder("nll", ID) / "status.json"
    path.parent.mkdir(parents=True)
    for text in ("{", "[]", "5"):
        path.write_text(text)
        assert store.status("nll", ID) == {}


@pytest.fixture
def studies(tmp_path):
    for age, name in ((100, "old"), (0, "new"), (200, "oldest")):
        plan = tmp_path / "studies" / name / "plan.json"
        files.write_json(plan, {"study": name, "cells": [], "results": [], "stages": []})
        then = time.time() - age
        os.utime(plan, (then, then))
    return tmp_path


def test_the_newest_study_is_the_one_that_ran_last(studies):
    assert newest_study(studies).name == "new"
    assert find_study(None, studies).name == "new"


def test_a_study_is_found_by_name_or_folder(studies):
    folder = studies / "studies" / "old"
    assert find_study("old", studies) == folder
    assert find_study(str(folder), studies / "elsewhere") == folder


def test_a_study_that_is_not_there_is_said_with_those_that_are(studies, tmp_path):
    with pytest.raises(DdpmkitError, match="no study 'olde'") as caught:
        find_study("olde", studies)
    assert caught.value.hint == "studies there: new, old, oldest"
    with pytest.raises(DdpmkitError, match="there are no studies"):
        find_study(None, tmp_path / "nowhere")


def test_numbers_that_were_changed_after_the_commit_are_no_result(tmp_path):
    """A result that is not what was committed must neither be reported nor count as done."""
    store = Store(tmp_path)
    out = store.folder("score", ID) / "out"
    files.commit_folder(out, {"result.json": b'{"fd": 4.5}'}, {})
    assert store.done("score", ID)
    assert store.result("score", ID) == {"fd": 4.5}
    (out / "result.json").write_text('{"fd": 1.5}')
    assert not store.done("score", ID)
    assert store.result("score", ID) == {}


def test_what_may_not_be_looked_at_is_not_said_to_be_missing(tmp_path, monkeypatch):
    """As in a store of somebody else's: else a plan would train again what is there."""

    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refused)
        with pytest.raises(PermissionError):
            Store(tmp_path).done("score", ID)
    assert not Store(tmp_path).done("score", ID)


def test_a_store_of_another_format_is_refused_before_anything_is_said_of_its_stages(tmp_path, capsys):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "FORMAT").write_text("2\n")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert main(["ablate", "-n", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"error: the store in '{tmp_path}' has format '2', and this ddpmkit writes 1"
    assert len(said) == 2
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
