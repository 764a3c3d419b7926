"""Who renames, removes or takes back a study and who works on it come one after another; no stage is computed here."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from ddpmkit import files
from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.study import garbage
from ddpmkit.study.catalogue import list_studies, remove_study, rename_study, restore_study
from ddpmkit.study.claim import claimed
from ddpmkit.study.garbage import collect, find_garbage
from ddpmkit.study.presence import COLLECTION, alone, at_work, collecting, runs_of
from ddpmkit.study.sharing import SHARED
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


def stage(store: Store, digit: str, *, done: bool = True) -> dict[str, str]:
    """A stage of no work, as a plan names it."""
    store.prepare()
    folder = store.folder("nll", digit * 64)
    folder.mkdir(parents=True)
    (folder / "status.json").write_text("{}")
    if done:
        files.commit_folder(folder / "out", {"result.json": b"{}"}, {})
    return {"kind": "nll", "id": digit * 64}


def test_gc_says_as_json_what_was_moved_and_not_what_it_had_found(tmp_path: Path, monkeypatch, capsys) -> None:
    store = Store(tmp_path)
    planned(tmp_path, "mine")
    for digit in "abc":
        stage(store, digit)
    real = garbage._move
    monkeypatch.setattr(garbage, "_move", lambda item, *more: item.path.name[0] != "b" and real(item, *more))
    assert main(["gc", "--yes", "--json", "--out", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [Path(i["path"]).name[0] for i in told["items"]] == ["a", "c"]
    assert (told["done"], told["busy"], told["failed"]) == (True, 1, [])
    assert main(["gc", "--yes", "--json", "--empty-trash", "--out", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [d["bytes"] > 0 for d in told["delete"]] == [True]


def test_what_can_not_be_moved_does_not_hide_what_was(tmp_path: Path, monkeypatch, capsys) -> None:
    store = Store(tmp_path)
    planned(tmp_path, "mine")
    folders = [store.folder("nll", stage(store, digit)["id"]) for digit in "abc"]
    real = garbage.throw_away

    def refuse(path: Path, *more):
        if path == folders[1]:
            raise OSError(28, "No space left on device")
        return real(path, *more)

    monkeypatch.setattr(garbage, "throw_away", refuse)
    assert main(["gc", "--yes", "--json", "--out", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert [Path(i["path"]) for i in told["items"]] == [folders[0], folders[2]]
    assert len(told["failed"]) == 1
    assert f"'{folders[1]}': No space left on device" in captured.err
    assert [f.exists() for f in folders] == [False, True, False]


def thrown(out: Path) -> tuple[Store, Path, Path]:
    """A study of one finished stage, both in the trash, and the places where they were."""
    store = Store(out)
    folder = planned(out, "mine", stages=[stage(store, "a")])
    remove_study(store, "mine")
    assert len(collect(store, find_garbage(store)).items) == 1
    return store, folder, store.folder("nll", "a" * 64)


@pytest.mark.parametrize("begun", ["nothing", "a claim", "a status"])
def test_a_stage_comes_back_in_place_of_one_that_was_begun(tmp_path: Path, begun: str) -> None:
    store, folder, place = thrown(tmp_path)
    if begun == "a claim":
        with claimed(place, "somebody"):
            pass
        assert place.is_dir()
    elif begun == "a status":
        stage(store, "a", done=False)
    assert restore_study(store, "mine") == (folder, 1, 0)
    assert store.done("nll", place.name)
    assert not list(place.glob("claim*"))


def test_a_stage_that_somebody_is_at_work_on_is_left_and_counted(tmp_path: Path, capsys) -> None:
    store, folder, place = thrown(tmp_path)
    with claimed(place, "somebody"):
        assert main(["studies", "restore", "mine", "--out", str(tmp_path)]) == 0
    assert "1 stages are left in the trash" in capsys.readouterr().err
    assert folder.is_dir()
    assert not store.done("nll", place.name)


def test_nobody_takes_back_what_a_collection_may_delete(tmp_path: Path) -> None:
    store, folder, _ = thrown(tmp_path)
    with collecting(store, "gc"), pytest.raises(DdpmkitError, match="another gc is at work") as refused:
        restore_study(store, "mine")
    assert "ddpmkit studies restore mine" in refused.value.hint
    assert not folder.exists()
    assert (store.root / COLLECTION).is_dir()


def test_a_folder_that_is_read_over_a_link_is_known_to_the_store(tmp_path: Path, monkeypatch) -> None:
    from ddpmkit.report import write

    store = Store(tmp_path / "big")
    mark = store.root / SHARED
    for name, read in (
        ("listed", lambda folder: list_studies(Store(folder.parent.parent))),
        ("reported", lambda folder: write._read(folder)),
    ):
        folder = planned(tmp_path / name, "mine", stages=[stage(store, name[0].translate({108: 97, 114: 98}))])
        (tmp_path / name / "store").symlink_to(store.root, target_is_directory=True)
        monkeypatch.setattr(write, "read_study", lambda _: None)
        before = len(list(mark.glob("*.json")))
        read(folder)
        assert len(list(mark.glob("*.json"))) == before + 1
    assert find_garbage(store).items == ()
