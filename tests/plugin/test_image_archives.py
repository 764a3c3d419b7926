"""CIFAR-10's binary archive and MNIST's files: read as they are published, refused by name where they are not."""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ddpmkit
from ddpmkit import DdpmkitError
from ddpmkit.builtin.datasets import cifar10
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.kept import find_data
from ddpmkit.study.store import Store

RNG = np.random.default_rng(0)
FEW = 20  # records of a file here; the published ones have 10,000
CIFAR = {
    name: (RNG.integers(0, 10, FEW).astype(np.uint8), RNG.integers(0, 256, (FEW, 3, 32, 32), dtype=np.uint8))
    for name in (*cifar10.TRAIN, cifar10.TEST)
}


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "RECORDS", FEW)


def record_bytes(labels: Any, pixels: Any) -> bytes:
    return np.concatenate([labels[:, None], pixels.reshape(len(labels), -1)], axis=1).tobytes()


def cifar_files(**changes: bytes | None) -> dict[str, bytes]:
    whole = {name: record_bytes(*held) for name, held in CIFAR.items()}
    return {k: v for k, v in {**whole, **changes}.items() if v is not None}


def archive(path: Path, files: dict[str, bytes], folder: str = "cifar-10-batches-bin/") -> str:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(folder + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def unpacked(folder: Path, files: dict[str, bytes]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return str(folder)


def load(name: str, path: str | Path, validation: int = 5) -> Any:
    return ddpmkit.build("dataset", f"{name}:path={path}:validation={validation}").load()


def refusal(name: str, path: str | Path, validation: int = 5) -> DdpmkitError:
    with pytest.raises(DdpmkitError) as caught:
        load(name, path, validation)
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    dataset = ddpmkit.build("dataset", f"{name}:path={path}:validation={validation}")
    with pytest.raises(DdpmkitError) as planned:  # a study asks for the stamp first, and must say the same
        find_data(Store(Path("nowhere")), Registry(installed=False), dataset)
    assert (planned.value.message, planned.value.hint) == (caught.value.message, caught.value.hint)
    return caught.value


def test_cifar10_is_the_same_from_the_archive_its_folder_and_the_folder_above(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "u" / "cifar-10-batches-bin", cifar_files())
    packed = archive(tmp_path / "a.tar.gz", cifar_files(**{"batches.meta.txt": b"airplane\n", "readme.html": b"x"}))
    found = [load("cifar10", path) for path in (packed, folder, tmp_path / "u")]
    images = found[0]
    pixels = np.concatenate([CIFAR[name][1] for name in cifar10.TRAIN])
    labels = np.concatenate([CIFAR[name][0] for name in cifar10.TRAIN])
    assert np.array_equal(images.train, pixels[:-5])
    assert np.array_equal(images.validation, pixels[-5:])
    assert np.array_equal(images.test, CIFAR[cifar10.TEST][1])
    assert np.array_equal(images.labels["train"], labels[:-5])
    assert np.array_equal(images.labels["validation"], labels[-5:])
    assert np.array_equal(images.labels["test"], CIFAR[cifar10.TEST][0])
    assert images.labels["test"].dtype == np.int64
    assert images.levels == 256
    assert len({f.fingerprint() for f in found}) == 1


def test_an_archive_in_another_order_gives_the_same_images(tmp_path: Path) -> None:
    files = cifar_files()
    here = load("cifar10", archive(tmp_path / "a.tar.gz", files)).fingerprint()
    assert load("cifar10", archive(tmp_path / "b.tar.gz", dict(reversed(files.items())))).fingerprint() == here


PICKLES = {"data_batch_1": b"\x80\x04.", "test_batch": b"\x80\x04.", "batches.meta": b"\x80\x04."}


@pytest.mark.parametrize("form", ["packed", "folder", "folder above"])
def test_the_pickled_cifar10_is_refused_with_the_reason(tmp_path: Path, form: str) -> None:
    packed = archive(tmp_path / "cifar-10-python.tar.gz", PICKLES, "cifar-10-batches-py/") if form == "packed" else ""
    folder = unpacked(tmp_path / "u" / "cifar-10-batches-py", PICKLES)
    err = refusal("cifar10", packed or (folder if form == "folder" else tmp_path / "u"))
    assert "is the pickled CIFAR-10: reading a pickle runs whatever code stands in it" in err.message
    assert "cifar-10-binary.tar.gz" in str(err.hint)


def wrong_label() -> bytes:
    labels = CIFAR["data_batch_2.bin"][0].copy()
    labels[3] = 10
    return record_bytes(labels, CIFAR["data_batch_2.bin"][1])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data_batch_3.bin": None}, "holds no data_batch_3.bin"),
        ({"test_batch.bin": b"x" * 3073}, f"has 3073 bytes, not {FEW} records of 3073"),
        ({"data_batch_1.bin": b"x" * (FEW * 3073 - 1)}, f"has {FEW * 3073 - 1} bytes"),
        ({"data_batch_2.bin": wrong_label()}, "holds the label 10, and classes are 0 to 9"),
    ],
)
def test_what_is_not_as_published_is_refused(
    tmp_path: Path, packed: bool, change: dict[str, bytes | None], told: str
) -> None:
    files = cifar_files(**change)
    path = archive(tmp_path / "a.tar.gz", files) if packed else unpacked(tmp_path / "u", files)
    err = refusal("cifar10", path)
    assert told in err.message
    assert next(iter(change)) in err.message


def test_a_damaged_archive_is_refused_and_never_a_crash(tmp_path: Path) -> None:
    whole = Path(archive(tmp_path / "a.tar.gz", cifar_files())).read_bytes()
    expected, rng, refused = load("cifar10", tmp_path / "a.tar.gz").fingerprint(), random.Random(0), 0
    damaged = tmp_path / "d.tar.gz"
    for _ in range(60):
        blob = bytearray(whole)
        blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
        damaged.write_bytes(blob[: rng.choice([len(blob), rng.randrange(len(blob))])])
        try:
            images = load("cifar10", damaged)
        except DdpmkitError as err:
            refused += 1
            assert str(damaged) in err.message  # noqa: PT017 - damage that hits no data is no error
        else:
            assert images.fingerprint() == expected
    assert refused > 40


def bomb(path: Path, kind: bytes, size: int) -> Path:
    """A small archive with one member, or header that goes on, of many zeros."""
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("zeros")
        info.type, info.size = kind, size
        tar.addfile(info, io.BytesIO(bytes(size)))
    return path


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_header_that_goes_on_and_on_is_not_read(tmp_path: Path, kind: bytes) -> None:
    path, size = bomb(tmp_path / "a.tar.gz", kind, 4 * 2**20), 2**20
    tracemalloc.start()
    try:
        err = refusal("cifar10", path)
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()
    assert "a header of type" in err.message
    assert "fetch it again" in str(err.hint)


def test_an_archive_that_unpacks_to_more_than_the_published_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bomb(tmp_path / "a.tar.gz", tarfile.REGTYPE, 2 * 2**20)
    monkeypatch.setattr(cifar10, "UNPACKED", 2**20)
    assert "it unpacks to more than 1048576 bytes" in refusal("cifar10", path).message
    path.write_bytes(gzip.compress(b"".join([tar_of(cifar_files()), bytes(2**20)])))  # behind the end of it
    assert "it unpacks to more than 1048576 bytes" in refusal("cifar10", path).message


def tar_of(files: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return whole.getvalue()


@pytest.mark.parametrize("name", ["cifar10", "idx"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    assert "needs" in refusal(name, "").message
    assert str(tmp_path / "no") in refusal(name, tmp_path / "no").message
    (tmp_path / "empty").mkdir()
    assert "holds no" in refusal(name, tmp_path / "empty").message


def test_more_for_validation_than_there_is_is_refused(tmp_path: Path) -> None:
    path = unpacked(tmp_path / "u", cifar_files())
    assert "100 of 100 training images for validation" in refusal("cifar10", path, 100).message
    assert "30 of 30 training images for validation" in refusal("idx", idx_folder(tmp_path / "i"), 30).message


# --- MNIST's files ------------------------------------------------------------------------------------------------

IDX = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (30, 6, 5), dtype=np.uint8),
    "train-labels-idx1-ubyte": RNG.integers(0, 10, 30).astype(np.uint8),
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (9, 6, 5), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": RNG.integers(0, 10, 9).astype(np.uint8),
}


def idx_bytes(array: Any) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + bytes(array.tobytes())


def idx_folder(folder: Path, *, dot: bool = False, zipped: bool = False, **changes: bytes | None) -> str:
    folder.mkdir(parents=True)
    for name, data in {**{k: idx_bytes(v) for k, v in IDX.items()}, **changes}.items():
        if data is not None:
            named = name.replace("-idx", ".idx") if dot else name
            (folder / (named + ".gz" if zipped else named)).write_bytes(gzip.compress(data) if zipped else data)
    return str(folder)


def test_idx_files_are_the_same_gzipped_or_not_with_a_dash_or_a_dot(tmp_path: Path) -> None:
    paths = [
        idx_folder(tmp_path / f"{dot}{zipped}", dot=dot, zipped=zipped)
        for dot in (True, False)
        for zipped in (True, False)
    ]
    found = [load("idx", path) for path in paths]
    images = found[0]
    assert np.array_equal(images.train, IDX["train-images-idx3-ubyte"][:25, None])
    assert np.array_equal(images.validation, IDX["train-images-idx3-ubyte"][25:, None])
    assert np.array_equal(images.test, IDX["t10k-images-idx3-ubyte"][:, None])
    assert np.array_equal(images.labels["validation"], IDX["train-labels-idx1-ubyte"][25:])
    assert images.labels["train"].dtype == np.int64
    assert len({f.fingerprint() for f in found}) == 1


def test_what_is_odd_about_the_classes_is_said_of_every_reader(tmp_path: Path) -> None:
    labels, test_labels = np.array([1] * 29 + [4], np.uint8), np.array([1] * 7 + [2] * 2, np.uint8)
    odd = {"train-labels-idx1-ubyte": idx_bytes(labels), "t10k-labels-idx1-ubyte": idx_bytes(test_labels)}
    np.savez(
        tmp_path / "a.npz", train_images=IDX["train-images-idx3-ubyte"], test_images=IDX["t10k-images-idx3-ubyte"],
        train_labels=labels, test_labels=test_labels,
    )  # fmt: skip
    for name, path in (("idx", idx_folder(tmp_path / "i", **odd)), ("npz", tmp_path / "a.npz")):
        said = " / ".join(load(name, path).notes)
        assert "classes of one image: 4" in said
        assert "classes without a training image: 2, 4" in said  # the last one is of the validation images
        assert "labels go up to 4, and 3 classes occur" in said


WHOLE = idx_bytes(IDX["train-images-idx3-ubyte"])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train-images-idx3-ubyte": WHOLE[:-1]}, "declares 30 x 6 x 5 bytes and holds 899"),
        ({"train-images-idx3-ubyte": WHOLE + b"x"}, "declares 30 x 6 x 5 bytes and holds"),
        ({"train-images-idx3-ubyte": b"\x00\x00\x0d" + WHOLE[3:]}, "does not begin as an idx file of 3 dimensions"),
        ({"train-labels-idx1-ubyte": WHOLE}, "does not begin as an idx file of 1 dimension "),
        ({"train-images-idx3-ubyte": WHOLE[:4] + b"\xff" * 12}, "and no more than 8589934592 are read"),
        ({"train-images-idx3-ubyte": WHOLE[:4] + bytes(12)}, "declares no pixels"),
        ({"t10k-images-idx3-ubyte": b""}, "does not begin as"),
        ({"t10k-labels-idx1-ubyte": None}, "holds no t10k-labels-idx1-ubyte"),
        ({"t10k-labels-idx1-ubyte": idx_bytes(np.zeros(8, np.uint8))}, "holds 9 images and"),
        ({"t10k-images-idx3-ubyte": idx_bytes(np.zeros((9, 5, 6), np.uint8))}, "are 5 x 6 and 6 x 5"),
    ],
)
def test_an_idx_file_that_is_not_what_it_says_is_refused(
    tmp_path: Path, zipped: bool, change: dict[str, bytes | None], told: str
) -> None:
    assert told in refusal("idx", idx_folder(tmp_path / "i", zipped=zipped, **change)).message


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    file = Path(idx_folder(tmp_path / "i", zipped=True)) / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for blob in (whole[:-6], whole[:200] + b"\x00\x01" + whole[202:], b"x" + whole, whole[:-8] + bytes(8)):
        file.write_bytes(blob)
        assert str(file) in refusal("idx", tmp_path / "i").message


@pytest.mark.parametrize("make", [idx_folder, lambda folder: unpacked(folder, cifar_files())])
def test_a_stamp_changes_with_the_files_and_reads_none(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path / "d")
    name = "idx" if make is idx_folder else "cifar10"
    dataset = ddpmkit.build("dataset", f"{name}:path={path}")
    before = dataset.stamp()
    assert dataset.stamp() == before
    file = sorted(Path(path).iterdir())[0]
    file.write_bytes(file.read_bytes() + b"x")
    assert dataset.stamp() != before


# --- what may not be looked at ------------------------------------------------------------------------------------


def place_of(name: str, folder: Path) -> Path:
    if name == "cifar10":
        return Path(archive(folder / "a.tar.gz", cifar_files()))
    if name == "cifar10 unpacked":
        return Path(unpacked(folder / "u", cifar_files()))
    if name == "idx":
        return Path(idx_folder(folder / "i"))
    if name == "npz":
        np.savez(
            folder / "a.npz", train_images=IDX["train-images-idx3-ubyte"], test_images=IDX["t10k-images-idx3-ubyte"]
        )
        return folder / "a.npz"
    (folder / "f").mkdir()
    for k in range(60):
        Image.fromarray(RNG.integers(0, 256, (6, 6), dtype=np.uint8)).save(folder / "f" / f"{k}.png")
    return folder / "f"


READERS = ["cifar10", "cifar10 unpacked", "idx", "npz", "folder"]
LISTING = ["cifar10 unpacked", "folder"]  # the others ask for names that they know


@pytest.mark.parametrize(
    ("name", "how"),
    [(n, h) for n in READERS for h in ("looked at", "opened", "listed") if h != "listed" or n in LISTING],
)
def test_a_lack_of_permission_is_said_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    place = place_of(name, tmp_path)

    def denying(function: Any) -> Any:
        def asked(path: Any = ".", *args: Any, **options: Any) -> Any:
            if isinstance(path, (str, Path)) and str(path).startswith(str(place)):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **options)

        return asked

    if how == "looked at":
        monkeypatch.setattr(os, "stat", denying(os.stat))
    elif how == "opened":
        monkeypatch.setattr(io, "open", denying(io.open))
        monkeypatch.setattr("builtins.open", io.open)
    else:
        monkeypatch.setattr(os, "listdir", denying(os.listdir))
        monkeypatch.setattr(os, "scandir", denying(os.scandir))
    kind = name.split()[0]
    if kind == "folder":
        with pytest.raises(DdpmkitError) as caught:
            ddpmkit.build("dataset", f"folder:path={place}").load()
        err = caught.value
    else:
        err = refusal(kind, place)
    assert re.fullmatch(rf"can't (look at|read) '{place}[^']*': Permission denied", err.message)
    assert "permissions" in str(err.hint)
