"""Decoded data in the store: used while the files are those of then, never when damaged, the same ids either way."""

from __future__ import annotations

import io
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpmkit import files
from ddpmkit.builtin.datasets.npz import Npz
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Images
from ddpmkit.plugin.registry import Registry
from ddpmkit.study import data as data_module
from ddpmkit.study import kept as kept_module
from ddpmkit.study.config import make_study
from ddpmkit.study.kept import find_data, keep
from ddpmkit.study.plan import make_plan
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.store import Store
from ddpmkit.study.trained import open_training

REGISTRY = Registry(installed=False)
TINY = {
    "backbones": "unet:channels=8:mults=1", "train_steps": "2", "batch_size": "4", "samples": "10",
    "sampling_steps": "2", "timesteps": "40", "train_seeds": "0", "metrics": "fd", "features": "pca:k=4",
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "a.npz")


@pytest.fixture(autouse=True)
def fine_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits until its files are old enough; one looks at what happens before."""
    monkeypatch.setattr(kept_module, "TICK", 0)


def write(path: Path, seed: int = 0, **changes: Any) -> Path:
    rng = np.random.default_rng(seed)
    arrays = {
        "train_images": rng.integers(0, 256, (40, 8, 8), dtype=np.uint8),
        "test_images": rng.integers(0, 256, (20, 8, 8), dtype=np.uint8),
        "train_labels": rng.integers(0, 3, 40),
        "test_labels": rng.integers(0, 3, 20),
    }
    np.savez(path, **{**arrays, **changes})
    return path


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were decoded; and no process remembers what it opened for another test."""
    data_module._loaded.cache_clear()
    found: list[str] = []
    load = Npz.load

    def counted(self: Npz) -> Any:
        found.append(self.path)
        return load(self)

    monkeypatch.setattr(Npz, "load", counted)
    return found


def spec(path: Path) -> str:
    return f"npz:path={path}:validation=5"


def find(store: Store | None, path: Path) -> Any:
    return keep(find_data(store, REGISTRY, REGISTRY.build("dataset", spec(path))))


def planned(tmp_path: Path, path: Path, **options: Any) -> Any:
    return prepare(
        {**TINY, "dataset": spec(path), **options},
        out=tmp_path / "r",
        registry=REGISTRY,
        run_options=RunOptions(device="cpu", executor="inline"),
    )


def same(one: Any, other: Any) -> None:
    for split in ("train", "validation", "test"):
        assert np.array_equal(getattr(one, split), getattr(other, split))
        assert np.array_equal(one.labels[split], other.labels[split])
    assert one.levels == other.levels
    assert one.fingerprint() == other.fingerprint()


def test_data_are_decoded_once_for_all_plans_and_stages(source: Path, tmp_path: Path, loads: list[str]) -> None:
    prepared = planned(tmp_path, source)
    assert loads == [str(source)]
    same(prepared.plan.images, REGISTRY.build("dataset", spec(source)).load())
    del loads[:]
    assert run(prepared).code == 0
    again = planned(tmp_path, source)
    assert not again.todo
    assert [*again.plan.stages] == [*prepared.plan.stages]
    assert again.plan.notes == prepared.plan.notes
    assert loads == []


def test_ids_are_the_same_with_and_without_a_store(source: Path, tmp_path: Path) -> None:
    study = make_study({**TINY, "dataset": spec(source)}, REGISTRY)
    store = Store(tmp_path / "r")
    plans = [make_plan(study, REGISTRY, s) for s in (None, store, store)]
    assert [*plans[0].stages] == [*plans[1].stages] == [*plans[2].stages]
    assert [p.json() for p in plans[1:]] == [plans[0].json()] * 2


def test_a_plan_that_is_refused_keeps_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DdpmkitError):
        planned(tmp_path, source, metrics="fd,copy", samples="2")
    assert not (tmp_path / "r").exists()


def test_a_second_plan_looks_at_no_pixel(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"metrics": "fd,copy,nll", "features": "pca:k=4,pixels"}
    first = planned(tmp_path, source, **options)
    opened = kept_module._opened

    def hollow(root: Path, content: str) -> Any:
        """Kept data behind whose headers there are other pixels."""
        found = opened(root, content)
        if found is not None:
            for split in ("train", "validation", "test"):
                getattr(found.images, split)[:] = 0
        return found

    monkeypatch.setattr(kept_module, "_opened", hollow)
    second = planned(tmp_path, source, **options)
    assert not second.plan.images.train.any()
    assert second.plan.json() == first.plan.json()
    monkeypatch.setattr(kept_module.Data, "remembered", lambda self, question, ask: ask())
    with pytest.raises(DdpmkitError, match="copies"):  # or it would pass for a reason of its own
        planned(tmp_path, source, **options)


class Untouchable(np.ndarray[Any, Any]):
    """Pixels that whoever looks at one is told of."""

    def touched(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a pixel was looked at")

    # A part of them is a view, as untouchable.
    __array_ufunc__ = __array_function__ = __iter__ = reshape = tobytes = astype = copy = item = tolist = touched


def test_a_second_plan_touches_no_pixel(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"metrics": "fd,copy,nll", "features": "pca:k=4,pixels"}
    first = planned(tmp_path, source, **options)
    opened = kept_module._opened

    def closed(root: Path, content: str) -> Any:
        found = opened(root, content)
        if found is None:
            return None
        splits = ("train", "validation", "test")
        arrays = {split: getattr(found.images, split).view(Untouchable) for split in splits}
        return replace(found, images=replace(found.images, **arrays))

    monkeypatch.setattr(kept_module, "_opened", closed)
    assert planned(tmp_path, source, **options).plan.json() == first.plan.json()
    monkeypatch.setattr(kept_module.Data, "remembered", lambda self, question, ask: ask())
    with pytest.raises(
        DdpmkitError, match="'copy' failed: AssertionError: a pixel was looked at"
    ):  # or it would pass for a reason of its own
        planned(tmp_path, source, **options)


def test_what_is_known_of_kept_data_is_what_is_so(source: Path, tmp_path: Path) -> None:
    plain, store = find(None, source), Store(tmp_path / "r")
    find(store, source)
    kept = find(store, source)
    same(plain.images, kept.images)
    pixels = 2.0 * plain.images.train / 255 - 1
    for found in (plain, kept):
        assert (found.least, found.most) == (plain.images.train.min(), plain.images.train.max())
        assert found.second_moment == pytest.approx(float(np.mean(pixels**2)), rel=1e-12)
    assert plain.place is None
    assert kept.place == store.root / "data" / plain.fingerprint


def test_whoever_writes_into_kept_data_writes_for_himself(source: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "r")
    before = find(store, source).images
    before.train[:] = 0
    assert find(store, source).images.train.any()


def test_other_content_is_decoded_again_and_the_same_content_is_found_again(
    source: Path, tmp_path: Path, loads: list[str]
) -> None:
    store = Store(tmp_path / "r")
    first = find(store, source)
    size = source.stat().st_size
    write(source, seed=1)
    assert source.stat().st_size == size
    second = find(store, source)
    assert second.fingerprint != first.fingerprint
    os.utime(source, ns=(1, 1))
    third = find(store, source)
    assert third.fingerprint == second.fingerprint
    assert third.place == second.place
    assert len(loads) == 3
    find(store, source)
    write(tmp_path / "b.npz", seed=1)
    assert find(store, tmp_path / "b.npz").place == second.place
    assert len(loads) == 4


def test_a_file_that_keeps_its_size_and_its_time_is_still_seen(source: Path, tmp_path: Path) -> None:
    store, before = Store(tmp_path / "r"), source.stat()
    first = find(store, source)
    write(source, seed=1)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert find(store, source).fingerprint != first.fingerprint


def test_files_that_were_written_just_now_get_no_stamp_yet(
    source: Path, tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a coarse clock, another write in the same tick would leave size and times as they were."""
    monkeypatch.setattr(kept_module, "TICK", 2 * 10**9)
    store, now = Store(tmp_path / "r"), source.stat()
    monkeypatch.setattr(kept_module.time, "time_ns", lambda: now.st_ctime_ns + 10**9)
    first = find(store, source)
    assert first.place is not None  # kept by content all the same
    assert not list(store.root.glob("data/stamps/*"))
    write(source, seed=1)
    monkeypatch.setattr(Npz, "stamp", lambda self: [[self.path, now.st_size, now.st_mtime_ns, now.st_ctime_ns]])
    second = find(store, source)
    assert second.fingerprint != first.fingerprint
    monkeypatch.setattr(kept_module.time, "time_ns", lambda: now.st_ctime_ns + 3 * 10**9)
    find(store, source)
    assert len(loads) == 3
    assert find(store, source).fingerprint == second.fingerprint
    assert len(loads) == 3  # the clock has moved on, and the stamp is there


def test_labels_are_kept_and_two_labellings_share_no_training(source: Path, tmp_path: Path) -> None:
    write(tmp_path / "b.npz", train_labels=np.zeros(40, np.int64))
    one, other = planned(tmp_path, source), planned(tmp_path, tmp_path / "b.npz")
    assert np.array_equal(one.plan.images.train, other.plan.images.train)
    trained = [{i for i, s in p.plan.stages.items() if s.kind == "train"} for p in (one, other)]
    assert trained[0]
    assert not trained[0] & trained[1]
    assert not set(one.plan.stages) & set(other.plan.stages)


def test_the_names_of_classes_are_kept_with_the_stamp_and_stand_in_the_plan(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Npz.load
    monkeypatch.setattr(Npz, "load", lambda self: replace(load(self), classes=("swan", "ear")))
    prepared = planned(tmp_path, source)
    assert prepared.plan.json()["classes"] == ["swan", "ear"]
    keep(prepared.plan.data)
    monkeypatch.setattr(Npz, "load", None)
    again = planned(tmp_path, source)
    assert again.plan.images.classes == ("swan", "ear")
    assert again.plan.stages.keys() == prepared.plan.stages.keys()


def shorter(place: Path) -> None:
    os.truncate(place / "train.npy", (place / "train.npy").stat().st_size - 64)


def longer(place: Path) -> None:
    with (place / "test.npy").open("ab") as file:
        file.write(b"x")


def headless(place: Path) -> None:
    data = (place / "train.npy").read_bytes()
    (place / "train.npy").write_bytes(b"\0" * 64 + data[64:])


def reshaped(place: Path) -> None:
    data = (place / "train.npy").read_bytes()
    (place / "train.npy").write_bytes(data.replace(b"(35, 1, 8, 8)", b"(35, 8, 1, 8)"))


DAMAGES = {
    "shorter": shorter,
    "longer": longer,
    "no header": headless,
    "another shape": reshaped,
    "a file is lost": lambda place: (place / "labels-test.npy").unlink(),
    "not committed": lambda place: (place / files.COMMIT).unlink(),
    "commit cut": lambda place: os.truncate(place / files.COMMIT, 100),
    "commit changed": lambda place: (place / files.COMMIT).write_text(
        (place / files.COMMIT).read_text().replace('"levels":256', '"levels":255')
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_data_are_never_used_and_made_again(
    source: Path, tmp_path: Path, loads: list[str], damage: Any
) -> None:
    store = Store(tmp_path / "r")
    place = find(store, source).place
    damage(place)
    found = find(store, source)
    assert len(loads) == 2
    same(found.images, REGISTRY.build("dataset", spec(source)).load())
    del loads[:]
    assert find(store, source).place == place
    assert loads == []
    assert list(place.parent.glob("quarantined-*"))


@pytest.mark.parametrize("what", ["COMMIT.json", "train.npy"])
def test_data_that_can_not_be_read_here_are_no_damaged_data(
    source: Path, tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any, what: str
) -> None:
    store = Store(tmp_path / "r")
    first = find(store, source)
    opened, load = Path.open, np.load

    def no_commit(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == what and args == ("rb",):
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **options)

    def no_map(path: Any, *args: Any, **options: Any) -> Any:  # a file system without mmap
        if Path(path).name == what and options.get("mmap_mode"):
            raise OSError(19, "No such device")
        return load(path, *args, **options)

    monkeypatch.setattr(Path, "open", no_commit)
    monkeypatch.setattr(np, "load", no_map)
    for _ in range(2):
        found = find(store, source)
        same(found.images, first.images)
        assert "can't be read: " in capsys.readouterr().err
    other = write(tmp_path / "b.npz")  # the same content by another stamp
    same(find(store, other).images, first.images)
    monkeypatch.undo()
    assert [p.name for p in (store.root / "data").glob("quarantined-*")] == []
    assert find(store, source).place == first.place


def test_one_wrong_byte_is_seen_by_whoever_works_on_it(source: Path, tmp_path: Path, loads: list[str]) -> None:
    prepared = planned(tmp_path, source)
    (place,) = (p for p in (tmp_path / "r" / "store" / "data").iterdir() if len(p.name) == 64)
    with (place / "train.npy").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    del loads[:]
    assert run(prepared).code == 0
    assert loads == [str(source)]
    assert list(place.parent.glob("quarantined-*"))
    same(find(prepared.store, source).images, REGISTRY.build("dataset", spec(source)).load())


def test_data_that_change_while_they_are_read_are_not_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Npz.load

    def changing(self: Npz) -> Any:
        images = load(self)
        write(source, seed=1)
        return images

    monkeypatch.setattr(Npz, "load", changing)
    store = Store(tmp_path / "r")
    assert find(store, source).place is None
    assert not (store.root / "data").exists()


def test_where_nothing_can_be_written_the_data_are_used_as_they_are(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r").write_text("a file, no folder")
    found = find(Store(tmp_path / "r"), source)
    assert found.place is None
    same(found.images, REGISTRY.build("dataset", spec(source)).load())
    assert "warning: decoded data can't be kept" in capsys.readouterr().err


def test_a_full_disk_is_said_once_with_the_folder_and_what_follows(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")  # as a write says it: of no file

    monkeypatch.setattr(files, "commit_folder", full)
    store = Store(tmp_path / "r")
    data = find_data(store, REGISTRY, REGISTRY.build("dataset", spec(source)))
    keep(data)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"can't be kept in '{store.root / 'data'}': No space left on device; each worker decodes them again" in said
    record = REGISTRY.record(REGISTRY.build("dataset", spec(source)))
    data_module._loaded.cache_clear()
    same(data_module.load_images(store, REGISTRY, {"dataset": record, "data": data.fingerprint}), data.images)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_an_array_is_written_piece_by_piece_as_numpy_writes_it(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    monkeypatch.setattr(kept_module, "CHUNK", 100)
    array = np.random.default_rng(0).integers(0, 256, (7, 1, 5, 9)).astype(dtype)
    whole = io.BytesIO()
    np.lib.format.write_array(whole, array, version=(1, 0), allow_pickle=False)
    pieces = [bytes(piece) for piece in kept_module._as_npy(array)]
    assert b"".join(pieces) == whole.getvalue()
    assert max(map(len, pieces)) <= 128


def test_keeping_data_takes_no_second_copy_of_them(tmp_path: Path) -> None:
    images = Images(*(np.zeros((n, 1, 512, 512), np.uint8) for n in (200, 2, 2)), 256, {})
    data = replace(kept_module.Data.of(images), wanted=(tmp_path / "data" / "stamps" / "x.json", {}))
    tracemalloc.start()
    kept = keep(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept.place is not None
    assert files.verify_folder(kept.place) is not None
    assert peak < images.train.nbytes / 4


@pytest.mark.parametrize("kept", [True, False])
def test_a_plan_loads_a_built_in_data_set_once(source: Path, tmp_path: Path, loads: list[str], kept: bool) -> None:
    make_plan(
        make_study({**TINY, "dataset": spec(source)}, REGISTRY), REGISTRY, Store(tmp_path / "r") if kept else None
    )
    assert loads == [str(source)]


def test_a_data_set_without_a_stamp_is_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "r")
    assert keep(find_data(store, REGISTRY, REGISTRY.build("dataset", "digits"))).place is None
    assert not store.root.exists()


def test_a_stamp_that_is_no_json_is_refused(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    monkeypatch.setattr(Npz, "stamp", lambda self: {1, 2})
    with pytest.raises(DdpmkitError, match="its stamp is"):
        find(None, source)


@pytest.mark.long
def test_a_finished_network_is_used_where_the_source_is_gone_and_never_with_other_data(
    source: Path, tmp_path: Path, loads: list[str]
) -> None:
    prepared = planned(tmp_path, source)
    assert run(prepared).code == 0
    (training,) = (s.id for s in prepared.plan.stages.values() if s.kind == "train")
    images = prepared.plan.images
    (tmp_path / "r").rename(tmp_path / "moved")
    source.unlink()
    data_module._loaded.cache_clear()
    trained = open_training(tmp_path / "moved", training, device="cpu")
    same(trained.images, images)
    place = tmp_path / "moved" / "store" / "data" / trained.spec.data
    with (place / "train.npy").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\0\1\2")
    data_module._loaded.cache_clear()
    with pytest.raises(DdpmkitError, match=f"there is no file '{source}'"):
        open_training(tmp_path / "moved", training, device="cpu")


def test_a_source_that_changed_after_the_plan_is_refused_by_the_stage(source: Path, tmp_path: Path) -> None:
    prepared = planned(tmp_path, source)
    write(source, seed=1)
    run(prepared)
    errors = {prepared.store.status(s.kind, s.id).get("error") for s in prepared.todo}
    assert any("data set 'npz' has changed since the stage was planned" in str(e) for e in errors)
