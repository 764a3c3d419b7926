"""Who renames, removes or takes back a study and who works on it come one after another; no stage is computed here."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.study.catalogue import remove_study, rename_study
from ddpmkit.study.presence import alone, at_work, runs_of
from ddpmkit.study.store import Store


def planned(out: Path, name: str, **more: object) -> Path:
    """A study of no stage."""
    folder = out / "studies" / name
    folder.mkdir(parents=True)
    plan = {"study": name, "cells": [], "results": [], "stages": [], **more}
    files.write_sealed(folder / "plan.json", plan)
    (folder / "study.toml").write_text(f'name = "{name}"\n')
    return folder


@pytest.mark.parametrize("move", [lambda s: rename_study(s, "mine", "other"), lambda s: remove_study(s, "mine")])
def test_who_moves_a_study_waits_for_who_enters_it(tmp_path: Path, move) -> None:
    folder, ended = planned(tmp_path, "mine"), []

    def moving() -> None:
        try:
            move(Store(tmp_path))
        except DdpmkitError as err:
            ended.append(err.message)

    thread = threading.Thread(target=moving)
    with alone(folder):  # as who writes its plan
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert (folder / "plan.json").exists()
    thread.join(30)
    assert not folder.exists()
    assert ended == []


def test_who_begins_to_work_on_a_study_waits_for_who_moves_it(tmp_path: Path) -> None:
    folder, seen = planned(tmp_path, "mine"), []

    def working() -> None:
        with at_work(folder, "one"):
            seen.append(len(runs_of(folder)))

    thread = threading.Thread(target=working)
    with alone(folder):
        thread.start()
        thread.join(0.5)
        assert seen == []
        assert runs_of(folder) == []
    thread.join(30)
    assert seen == [1]
    assert runs_of(folder) == []


def test_no_claim_goes_with_a_study_that_was_moved(tmp_path: Path) -> None:
    planned(tmp_path, "mine")
    store = Store(tmp_path)
    folder = rename_study(store, "mine", "other")
    assert sorted(p.name for p in folder.iterdir()) == ["plan.json", "study.toml"]
    assert [p.name for p in (tmp_path / "studies").iterdir()] == ["other"]
    place = remove_study(store, "other")
    assert sorted(p.name for p in place.iterdir()) == ["plan.json", "study.toml"]
    with at_work(folder, "one"):  # the name is free
        pass


def test_a_name_that_is_taken_meanwhile_is_refused(tmp_path: Path, monkeypatch) -> None:
    from ddpmkit.study import catalogue

    real = catalogue.os.rename
    folder = planned(tmp_path, "mine")

    def late(*given: Path) -> None:
        planned(tmp_path, "other")
        real(*given)

    monkeypatch.setattr(catalogue.os, "rename", late)
    with pytest.raises(DdpmkitError, match="already"):
        rename_study(Store(tmp_path), "mine", "other")
    assert sorted(p.name for p in folder.iterdir()) == ["plan.json", "study.toml"]
