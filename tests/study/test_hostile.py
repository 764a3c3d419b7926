"""A results folder or a study's file that somebody made up runs nothing, leads nowhere else, and ends in two lines."""

from __future__ import annotations

import io
import json
import os
import pickle  # noqa: TID251 - what is refused is made first
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ddpmkit import files
from ddpmkit.builtin.executors._log import Log
from ddpmkit.builtin.executors._process import Process
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.read.samples import samples_of
from ddpmkit.study.claim import FIRST, Claim, holder
from ddpmkit.study.ending import settle
from ddpmkit.study.enter import working
from ddpmkit.study.examine import committed, record
from ddpmkit.study.execute import execute
from ddpmkit.study.garbage import collect, find_garbage
from ddpmkit.study.kept import find_kept
from ddpmkit.study.prepare import prepare
from ddpmkit.study.presence import at_work
from ddpmkit.study.records import NllRecord
from ddpmkit.study.runner import _mend_records
from ddpmkit.study.settings import COMPONENTS, StageOptions
from ddpmkit.study.store import Store
from ddpmkit.study.trash import Batch, take_back
from ddpmkit.study.values import read_toml
from ddpmkit.training import checkpoint

ID = "ab" * 32
DEEP = b"[" * 200_000
REGISTRY = Registry(installed=False)


def deep(path: Path) -> None:
    """Lists in lists, more than any stack holds."""
    path.write_bytes(DEEP + b"]" * len(DEEP))


def deep_in_a_record(path: Path) -> None:
    path.write_bytes(b'{"state":' + DEEP + b"]" * len(DEEP) + b"}")


def huge(path: Path) -> None:
    """A file without end, of no block on the disk."""
    path.write_bytes(b"")
    os.truncate(path, 2**40)


def pipe(path: Path) -> None:
    """What waits for somebody to write."""
    os.mkfifo(path)


def device(path: Path) -> None:
    """What has no end, and says that it is empty."""
    path.symlink_to("/dev/zero")


def digits(path: Path) -> None:
    """A number that takes longer to read than anybody waits."""
    path.write_bytes(b'{"state":' + b"9" * 10_000 + b"}")


MADE_UP: tuple[Callable[[Path], None], ...] = (deep, deep_in_a_record, huge, pipe, device, digits)
made_up = pytest.mark.parametrize("write", MADE_UP, ids=lambda w: w.__name__)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "results")
    made.prepare()
    return made


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Somebody's own folders, named so that a store may take them for its own, and old."""
    place = tmp_path / "photos"
    for name in ("00002019", "00002020", "00002021", "20190101T000000Z-aa"):
        (place / name).mkdir(parents=True)
        (place / name / "picture").write_text("mine")
        os.utime(place / name, (1e9, 1e9))
    return place


def whole(place: Path) -> bool:
    return sorted(p.read_text() for p in place.glob("*/picture")) == ["mine"] * 4


def commit(folder: Path, listing: dict[str, Any], meta: dict[str, Any]) -> None:
    """A COMMIT.json that fits its own hash, whatever it lists."""
    content = {"files": listing, "meta": meta}
    whole = {**content, "sha256": files.sha256(files.canonical(content).encode())}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / files.COMMIT).write_text(files.canonical(whole) + "\n")


@made_up
def test_a_record_that_is_none_reads_as_none(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "x.json"
    write(path)
    assert files.read_json(path) is None
    assert files.read_sealed(path) is None
    assert list(files.read_lines(path)) == []
    file, said = record(path)
    assert file.why
    assert said is None


@made_up
def test_a_stage_of_such_records_has_none_and_is_not_done(store: Store, write: Callable[[Path], None]) -> None:
    folder = store.folder("nll", ID)
    (folder / "out").mkdir(parents=True)
    for name in ("status.json", "spec.json", "claim.json", "out/result.json", "out/COMMIT.json"):
        write(folder / name)
    assert store.status("nll", ID) == {}
    assert store.record(NllRecord, ID) is None
    assert not store.intact("nll", ID)
    with pytest.raises(DdpmkitError, match="is not what its folder is named by"):
        store.spec("nll", ID)
    assert holder(folder) == Claim()  # nobody knows whose it is, so nobody takes it away


def test_a_result_without_end_that_fits_its_hash_is_none(store: Store) -> None:
    text = DEEP + b"]" * len(DEEP)
    files.commit_folder(store.folder("nll", ID) / "out", {"result.json": text}, {})
    assert store.record(NllRecord, ID) is None


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "..", "a/b", "", "a\0b"])
def test_a_list_of_files_names_files_of_its_folder_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    commit(tmp_path / "out", {name: {"bytes": 1, "sha256": files.sha256(b"1")}}, {})
    assert files.verify_folder(tmp_path / "out") is None
    assert files.verify_folder(tmp_path / "out", contents=False) is None
    assert any("names a file that is none in its folder" in file.why for file in committed(tmp_path / "out"))


def test_a_file_of_a_list_that_has_no_end_is_not_read(tmp_path: Path) -> None:
    commit(tmp_path / "out", {"a": {"bytes": 0, "sha256": files.sha256(b"")}}, {})
    (tmp_path / "out" / "a").symlink_to("/dev/zero")
    assert files.verify_folder(tmp_path / "out") is None
    assert [file.why for file in committed(tmp_path / "out")] == ["", "is not what was written"]


@pytest.mark.parametrize(("kind", "stage"), [("train", "../../photos"), ("../..", ID), ("train", ""), ("", ID)])
def test_a_stage_is_named_by_no_path(store: Store, kind: str, stage: str) -> None:
    with pytest.raises(DdpmkitError, match="is no stage"):
        store.folder(kind, stage)


def test_a_cell_of_a_made_up_plan_names_no_file_elsewhere(store: Store) -> None:
    found = {"count": 1, "levels": 2, "evaluations": 1}
    blob = files.pack({"levels": np.zeros((1, 1, 2, 2), np.uint8)})
    text = json.dumps(found).encode()
    files.commit_folder(store.folder("sample", ID) / "out", {"result.json": text, "samples.safetensors": blob}, {})
    plan = {
        "cells": [{"label": "a", "slug": "../../../photos/x"}],
        "results": [{"cell": "a", "sample": ID, "train_seed": 0, "sample_seed": 0}],
    }
    (one,) = samples_of(SimpleNamespace(plan=plan, folder=store.study("s")))  # type: ignore[arg-type]
    assert "/" not in one.slug
    assert "photos" in one.slug


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_kept_data_run_nothing(store: Store, tmp_path: Path) -> None:
    mark, place = tmp_path / "ran", store.root / "data" / ID
    array = np.array([Bomb(mark)], dtype=object)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    meta = {
        "fingerprint": ID,
        "shapes": {"labels-train": [1]},
        "levels": 2,
        "least": 0,
        "most": 1,
        "second_moment": 1.0,
    }
    files.commit_folder(place, {"labels-train.npy": buffer.getvalue()}, meta)
    assert find_kept(store, ID) is None
    assert not mark.exists()
    assert pickle.loads(pickle.dumps(Bomb(mark))) is None
    assert mark.exists()  # as it would have


def test_kept_data_are_read_of_their_own_folder(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", np.zeros(1, np.int64))
    shapes = {name: [1, 1, 2, 2] for name in ("train", "validation", "test")} | {f"{tmp_path}/secret": [1]}
    meta = {"fingerprint": ID, "shapes": shapes, "levels": 2, "least": 0, "most": 1, "second_moment": 1.0}
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 1, 2, 2), np.uint8))
    blobs = {f"{name}.npy": buffer.getvalue() for name in ("train", "validation", "test")}
    files.commit_folder(store.root / "data" / ID, blobs, meta)
    assert find_kept(store, ID) is None


# --- links --------------------------------------------------------------------------------------------------------


def test_checkpoints_behind_a_link_are_nobodys_to_drop(
    prepare_small: Any, tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = prepare_small(tmp_path / "results", name="s", metrics="nll")
    store, train = ready.store, next(s for s in ready.todo if s.kind == "train")
    (folder := store.folder("train", train.id)).mkdir(parents=True)
    (folder / "ckpt").symlink_to(outside, target_is_directory=True)
    assert execute(train, store, REGISTRY, StageOptions(device="cpu"), lambda _: None) == "failed"
    said = capsys.readouterr().err
    assert f"'{folder / 'ckpt'}' is, or lies behind, a link that leads out of '{store.root}', to '{outside}'" in said
    assert whole(outside)
    assert sorted(p.name for p in outside.iterdir()) == [
        "00002019", "00002020", "00002021", "20190101T000000Z-aa",
    ]  # fmt: skip
    place = tmp_path / "ckpt"
    place.mkdir()
    for name in ("00002019", "00002020", "00002021"):  # and one link is no checkpoint among others
        (place / name).symlink_to(outside / name, target_is_directory=True)
    checkpoint.write(place, checkpoint.Checkpoint(1, {}, {}, {}))
    assert whole(outside)


@pytest.fixture
def linked(prepare_small: Any, tmp_path: Path, outside: Path) -> tuple[Any, Any, Path]:
    """A prepared study, a training of it whose folder is a link to somebody's own, and what is in there."""
    ready = prepare_small(tmp_path / "results", name="s", metrics="nll")
    train = next(s for s in ready.todo if s.kind == "train")
    (folder := ready.store.folder("train", train.id)).parent.mkdir(parents=True)
    folder.symlink_to(outside, target_is_directory=True)
    for name in ("log.txt", "status.json", "spec.json"):
        (outside / name).write_text("mine")
    (outside / FIRST).write_text(json.dumps(asdict(Claim("elsewhere", pid=1, run="run"))))
    return ready, train, outside


def left(outside: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in outside.iterdir() if p.is_file()}


def test_of_a_stage_behind_a_link_no_end_is_written(linked: tuple[Any, Any, Path]) -> None:
    ready, train, outside = linked
    before = left(outside)
    event = {"event": "end", "stage": train.id, "state": "failed", "error": "x"}
    settle(ready.store, train, event, "run")
    assert left(outside) == before
    assert [*_mend_records(ready.plan, ready.store, (), "run")] == []
    assert left(outside) == before


def test_of_a_stage_that_was_not_begun_no_log_is_replaced(linked: tuple[Any, Any, Path]) -> None:
    ready, train, outside = linked
    before = left(outside)
    worker = object.__new__(Process)
    worker._log, worker.last_lines = Log(ready.store.folder("train", train.id) / "log.txt"), []
    worker._log.write(b"refused\n")
    worker._finish_log(failed=True)
    assert worker.last_lines == ["refused"]
    assert left(outside) == before


def test_runs_behind_a_link_are_nobodys_to_clear(prepare_small: Any, tmp_path: Path, outside: Path) -> None:
    ready = prepare_small(tmp_path / "results", name="s", metrics="nll")
    ready.folder.mkdir(parents=True)
    (ready.folder / ".runs").symlink_to(outside, target_is_directory=True)
    with pytest.raises(DdpmkitError, match="leads out of"), working(ready):
        pass
    with at_work(ready.folder, "mine"):  # as whoever does not ask
        pass
    assert whole(outside)


def test_the_trash_is_no_link(store: Store, outside: Path) -> None:
    home = store.root / "train"
    home.mkdir()
    (home / ".trash").symlink_to(outside, target_is_directory=True)
    folder = store.folder("train", ID)
    folder.mkdir(parents=True)
    found = collect(store, find_garbage(store, everything=True))
    assert "a link leads out of the store" in found.failed[0]
    assert folder.exists()
    assert whole(outside)


def test_a_kind_behind_a_link_is_not_collected(store: Store, outside: Path) -> None:
    found = find_garbage(store, everything=True)
    (outside / ID[:2] / ID).mkdir(parents=True)
    (outside / ".trash" / "20190101T000000Z-aa").mkdir(parents=True)
    (store.root / "train").symlink_to(outside, target_is_directory=True)
    with pytest.raises(DdpmkitError, match="leads out of"):
        find_garbage(store, everything=True)
    with pytest.raises(DdpmkitError, match="leads out of"):
        collect(store, found)
    assert (outside / ID[:2] / ID).is_dir()
    assert (outside / ".trash" / "20190101T000000Z-aa").is_dir()


@pytest.mark.parametrize("at", ["batch", "place"])
def test_nothing_is_taken_back_through_a_link(tmp_path: Path, outside: Path, at: str) -> None:
    batch = Batch(tmp_path / "home", "20190101T000000Z-aa")
    batch.folder.parent.mkdir(parents=True)
    if at == "batch":
        batch.folder.symlink_to(outside, target_is_directory=True)
    else:
        (batch.folder / "ab" / "00002022").mkdir(parents=True)
        (batch.home / "ab").symlink_to(outside, target_is_directory=True)
    path = batch.folder / ("00002019" if at == "batch" else "ab/00002022")
    with pytest.raises(OSError, match="leads out of the store"):
        take_back(path, batch)
    assert whole(outside)
    assert not (outside / "00002022").exists()
    assert path.is_dir()


def test_a_stage_behind_a_link_is_not_taken_apart(store: Store, outside: Path) -> None:
    (outside / ID).mkdir()
    (store.root / "train").mkdir()
    (store.root / "train" / ID[:2]).symlink_to(outside, target_is_directory=True)
    found = collect(store, find_garbage(store))
    assert "a link leads out of the store" in found.failed[0]
    assert (outside / ID).is_dir()


@pytest.mark.parametrize("name", ["train", "data", "gc", "shared"])
def test_a_store_whose_folders_lead_elsewhere_is_refused(tmp_path: Path, outside: Path, name: str) -> None:
    store = Store(tmp_path / "results")
    store.root.mkdir(parents=True)
    (store.root / name).symlink_to(outside, target_is_directory=True)
    with pytest.raises(DdpmkitError, match="leads out of") as caught:
        store.prepare()
    assert caught.value.hint
    linked = Store(tmp_path / "other")  # the store itself may be one
    linked.out.mkdir()
    (tmp_path / "big").mkdir()
    linked.root.symlink_to(tmp_path / "big", target_is_directory=True)
    linked.prepare()
    assert (tmp_path / "big" / "FORMAT").exists()


# --- a study's file -----------------------------------------------------------------------------------------------


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that can be imported here, and leaves a mark where it is."""
    mark = tmp_path / "imported"
    (tmp_path / "canary_module.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Linear: name = 'linear'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return mark


DOTTED = (
    "canary_module", "canary_module.Linear", "canary_module:Linear", "canary_module/linear", "canary_module.py",
    "./canary_module.py", "builtins.exec", "os:system=ls",
)  # fmt: skip


@pytest.mark.parametrize("field", sorted(COMPONENTS))
def test_no_component_of_a_study_is_a_module(canary: Path, tmp_path: Path, field: str) -> None:
    for text in DOTTED:
        path = tmp_path / "study.toml"
        path.write_text(f"name = 's'\n{field} = {json.dumps(text)}\n")
        with pytest.raises(DdpmkitError) as caught:
            prepare({"study": str(path)}, out=tmp_path / "results", registry=Registry())
        assert caught.value.hint
    assert not canary.exists()
    assert "canary_module" not in sys.modules


@pytest.mark.parametrize("key", ["plugin", "plugins", "p", "executor", "registry", "import", "__class__", "out"])
def test_a_study_names_no_plugin(canary: Path, tmp_path: Path, key: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(f"name = 's'\n{key} = ['canary_module']\n")
    with pytest.raises(DdpmkitError, match=key):
        prepare({"study": str(path)}, out=tmp_path / "results", registry=REGISTRY)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["../photos", "/tmp/photos", ".runs", "a/b", "", ".."])
def test_a_study_is_called_by_no_path(tmp_path: Path, name: str, few_digits: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(f"name = {json.dumps(name)}\ndataset = {json.dumps(few_digits)}\nsigmas = ['beta']\n")
    with pytest.raises(DdpmkitError, match="name"):
        prepare({"study": str(path)}, out=tmp_path / "results", registry=REGISTRY, probe=False)


def nested(path: Path) -> None:
    path.write_bytes(b"a = " + DEEP + b"]" * len(DEEP))


@pytest.mark.parametrize("write", [nested, huge, pipe, device], ids=lambda w: w.__name__)
def test_a_study_file_without_end_is_refused_at_once(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "study.toml"
    write(path)
    before = time.process_time()
    with pytest.raises(DdpmkitError) as caught:
        read_toml(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert time.process_time() - before < 5
