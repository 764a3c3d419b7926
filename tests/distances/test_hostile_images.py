"""Images and arrays that are made to cost more than they look: refused, or read within bounds; none runs a thing."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import ddpmkit
from ddpmkit.distances.folder import read_image_files
from ddpmkit.distances.images import read_images, read_statistics
from ddpmkit.errors import DdpmkitError

SIDE = 8
GIGABYTES = 3.6e9
MIB = 2**20


@contextmanager
def within(most: int) -> Iterator[None]:
    """Refuse more memory than so many bytes at once."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak / MIB:.0f} MiB"


def zeros(count: float) -> bytes:
    """So many zeros as zlib has them, in as little time: blocks that know nothing of each other, again and again."""
    compressor = zlib.compressobj(9)
    one = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return one[:2] + one[2:] * int(count / MIB) + b"\x03\x00" + bytes(4)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(path: Path, *between: bytes, data: bytes | None = None) -> Path:
    """A grey PNG of 8 x 8, with other chunks, and data that need not be its own."""
    rows = zlib.compress(bytes((SIDE + 1) * SIDE)) if data is None else data
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + b"".join(between) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def read_or_refused(path: Path) -> None:
    """Either is right; what is read has the size that it declares."""
    try:
        shape = read_image_files([path]).shape
    except DdpmkitError as err:
        shape = (1, 1, SIDE, SIDE) if str(path) in err.message and err.hint else ()
    assert shape == (1, 1, SIDE, SIDE)


def test_data_that_go_on_behind_the_last_row_are_not_unpacked(tmp_path: Path) -> None:
    data = zeros(GIGABYTES)
    assert zlib.decompressobj().decompress(data, 3 * MIB) == bytes(3 * MIB)  # they are what they should be
    path = png(tmp_path / "long.png", data=data)
    with within(64 * MIB):
        read_or_refused(path)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_text_or_a_profile_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path, name: bytes) -> None:
    head = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[name]
    path = png(tmp_path / "text.png", chunk(name, head + zeros(GIGABYTES)))
    with within(128 * MIB):
        read_or_refused(path)


def test_an_image_with_gigabytes_behind_it_is_refused_at_once(tmp_path: Path) -> None:
    path = png(tmp_path / "heavy.png")
    os.truncate(path, int(GIGABYTES))
    with within(8 * MIB), pytest.raises(DdpmkitError, match=r"has 3\.4 GiB, and images are read up to 512 MiB"):
        read_image_files([path])


def test_a_folder_of_images_is_hashed_piece_by_piece(tmp_path: Path) -> None:
    for k in range(40):
        png(tmp_path / f"{k}.png", chunk(b"tEXt", b"a\0" + str(k).encode()))
    os.truncate(tmp_path / "0.png", 32 * MIB)
    with within(16 * MIB):
        images = ddpmkit.build("dataset", f"folder:path={tmp_path}:validation=0.2:test=0.3").load()
    assert sum(len(split) for split in (images.train, images.validation, images.test)) == 40


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(/tmp/x) (w) file closefile\nshowpage\n%%EOF\n"


def test_a_program_that_calls_itself_an_image_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(*args: Any, **_: Any) -> Any:
        asked.append(args)
        return Image.new("RGB", (SIDE, SIDE)).im

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    (tmp_path / "a.png").write_bytes(EPS)
    with Image.open(tmp_path / "a.png") as image:  # by its content, whatever it is called
        assert image.format == "EPS"
        image.load()
    assert asked.pop()
    with pytest.raises(DdpmkitError, match="is no image"):
        read_image_files([tmp_path / "a.png"])
    assert not asked


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "DDS", "ICNS", "SGI"])
def test_only_what_is_documented_is_decoded(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a", kind)
    path = (tmp_path / "a").rename(tmp_path / "a.png")
    with pytest.raises(DdpmkitError, match="is no image"):
        read_image_files([path])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif", ".gif", ".ppm", ".pgm"])
def test_what_is_documented_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("L", (SIDE, SIDE), 7).save(path)
    assert read_image_files([path]).shape[2:] == (SIDE, SIDE)


# --- arrays -------------------------------------------------------------------------------------------------------


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def readers(path: Path) -> list[Any]:
    return [
        lambda: read_images(path),
        lambda: read_statistics(path),
        lambda: ddpmkit.build("dataset", f"npz:path={path}:validation=1").load(),
    ]


KEYS = ("images", "mu", "sigma", "train_images", "test_images")


def test_arrays_run_nothing(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "x.npz"
    bomb = np.array([Bomb(mark)], dtype=object)
    np.savez(path, **dict.fromkeys(KEYS, bomb))
    mark.unlink(missing_ok=True)
    for read in readers(path):
        with pytest.raises(DdpmkitError, match=r"no readable \.npz"):
            read()
    assert not mark.exists()


def npy(head: str, data: bytes = b"", *, version: tuple[int, int] = (2, 0)) -> bytes:
    text = head.encode("latin1")
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + data


def heads() -> dict[str, bytes]:
    """A header of sixteen megabytes, one that nests, one that calls, shapes that overflow or are not there."""
    fields = "'descr': '|u1', 'fortran_order': False"
    return {
        "long": npy("{" + fields + ", 'shape': (1,)}" + " " * 16 * MIB),
        "deep": npy("{" + fields + ", 'shape': " + "(" * 4000 + ")" * 4000 + "}"),
        "call": npy("{" + fields + ", 'shape': (__import__('os').getpid(),)}"),
        "wide": npy("{" + fields + ", 'shape': (2**62, 2**62)}"),
        "more": npy("{" + fields + f", 'shape': ({2**46},)}}", b"1"),
        "less": npy("{" + fields + ", 'shape': (-1,)}", b"1"),
    }


@pytest.mark.parametrize("name", ["long", "deep", "call", "wide", "more", "less"])
def test_a_header_that_is_made_up_is_refused(tmp_path: Path, name: str) -> None:
    path, member = tmp_path / "x.npz", heads()[name]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", member)
    for read in readers(path):
        with pytest.raises(DdpmkitError) as caught:
            read()
        assert str(path) in caught.value.message


def test_what_unpacks_to_more_than_it_declares_is_refused(tmp_path: Path) -> None:
    """A zip whose list says 100 bytes, of what unpacks to ten million."""
    path, buffer = tmp_path / "x.npz", io.BytesIO()
    member = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000,)}", bytes(10**7))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", member)
    raw, found = bytearray(buffer.getvalue()), 0
    for mark, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):  # the size of each member, where the format has it
        start = -1
        while (start := raw.find(mark, start + 1)) >= 0:
            raw[start + at : start + at + 4] = struct.pack("<I", 100)
            found += 1
    assert found == 2 * len(KEYS)
    path.write_bytes(bytes(raw))
    for read in readers(path):
        with within(64 * MIB), pytest.raises(DdpmkitError):
            read()
