"""Images from outside: folders, archives, grey levels, and everything that is no image."""

import io
import random
import re
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from ddpmkit.distances.images import read_images, read_statistics, write_statistics
from ddpmkit.errors import DdpmkitError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


def png(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_a_folder_is_read_in_the_order_of_its_names(folder, rng):
    images = rng.integers(0, 256, (4, 5, 6)).astype(np.uint8)
    for name, image in zip(("b.png", "a.png", "sub/c.PNG", "d.bmp"), images, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        png(folder / name, image)
    (folder / "notes.txt").write_text("not looked at")
    (folder / ".hidden.png").write_text("nor this")
    got = read_images(folder)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[:, 0], images[[1, 0, 3, 2]])


def test_colour_palette_and_black_and_white(folder, rng):
    colour = rng.integers(0, 4, (5, 6, 3)).astype(np.uint8) * 60
    png(folder / "a.png", colour)
    Image.fromarray(colour).quantize(256).save(folder / "b.png")
    got = read_images(folder)
    np.testing.assert_array_equal(got[0], colour.transpose(2, 0, 1))
    assert got.shape == (2, 3, 5, 6)
    grey = folder / "grey"
    grey.mkdir()
    Image.fromarray(rng.integers(0, 2, (5, 6)).astype(np.uint8) * 255).convert("1").save(grey / "a.png")
    assert set(np.unique(read_images(grey))) <= {0, 255}


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_eight_bit_files_come_back_as_the_levels_they_were_written_from(folder, rng, levels):
    image = rng.integers(0, levels, (8, 8))
    png(folder / "a.png", np.rint(image * 255 / (levels - 1)).astype(np.uint8))
    np.testing.assert_array_equal(read_images(folder, levels)[0, 0], image)


def test_grey_images_that_were_saved_in_colour(folder, rng):
    image = rng.integers(0, 256, (8, 8)).astype(np.uint8)
    png(folder / "a.png", np.repeat(image[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(read_images(folder, channels=1)[0, 0], image)
    assert read_images(folder).shape == (1, 3, 8, 8)
    png(folder / "a.png", rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    with pytest.raises(DdpmkitError, match="images of 3 channels, not 1"):
        read_images(folder, channels=1)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("key", ["arr_0", "levels", "anything"])
@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 8, 8, 3), (4, 3, 8, 8), (4, 1, 8, 8), (4, 8, 8, 1)])
def test_arrays(tmp_path, rng, suffix, key, shape):
    array = rng.integers(0, 17, shape).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    np.savez(path, **{key: array}) if suffix == ".npz" else save_file({key: array}, path)
    got = read_images(path, 17)
    expected = array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2) if shape[-1] in (1, 3) else array
    np.testing.assert_array_equal(got, expected)


def test_levels_are_never_guessed(tmp_path, rng):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.full((3, 8, 8), 255, np.uint8))
    with pytest.raises(DdpmkitError, match="holds the value 255, and 17 levels end at 16") as caught:
        read_images(path, 17)
    assert caught.value.hint == "say how many levels it has: --levels 256"
    assert (read_images(path, 17, declared=256) == 16).all()


def test_floats_are_rounded_to_the_nearest_level(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.linspace(-1, 1, 33).reshape(1, 1, 33, 1).repeat(33, 3))
    got = read_images(path, 17)[0, 0, :, 0]
    assert got[::2].tolist() == list(range(17))
    np.savez(path, images=np.full((2, 8, 8), 1.5))
    with pytest.raises(DdpmkitError, match=r"floats outside \[-1, 1\]"):
        read_images(path, 17)


@pytest.mark.parametrize(
    ("low", "high", "span", "hint"),
    [
        (0.0, 255.0, None, "--range=0,255"),
        (0.0, 9.0, (0.0, 1.0), "--range=0,255"),
        (-1.0, 1.0, (0.0, 1.0), "--range=-1,1"),
        (0.0, 1.0, (0.5, 0.75), "--range=0,1"),
        (-3.0, 3.0, None, "scale them to [-1, 1] first"),
        (-1e38, 1e38, None, "scale them to [-1, 1] first"),
        (0.0, 256.0, None, "scale them to [-1, 1] first"),
    ],
)
def test_a_range_that_is_proposed_holds_the_floats(tmp_path, low, high, span, hint):
    """A hint that led to the same error again would be none."""
    path = tmp_path / "a.npz"
    np.savez(path, images=np.linspace(low, high, 128, dtype=np.float32).reshape(2, 8, 8))
    with pytest.raises(DdpmkitError, match="holds floats outside") as caught:
        read_images(path, 17, span=span)
    assert hint in caught.value.hint
    if found := re.search(r"--range=([-\d.]+),([-\d.]+)$", caught.value.hint):
        assert read_images(path, 17, span=(float(found[1]), float(found[2]))).shape == (2, 1, 8, 8)


def bomb(path, width, height):
    """A PNG of a few hundred bytes that declares many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 50)))


BAD_FILES = {
    "text": (lambda p: p.write_text("hello"), "is no image"),
    "empty": (lambda p: p.write_bytes(b""), "is no image"),
    "cut": (lambda p: p.write_bytes(png(p, np.full((40, 40), 7, np.uint8)).read_bytes()[:-30]), "can't be read"),
    "bomb": (lambda p: bomb(p, 30000, 30000), "far too many pixels|declares 30000 x 30000"),
    "small bomb": (lambda p: bomb(p, 9400, 9400), "declares 9400 x 9400|far too many"),
    "hidden bomb": (lambda p: bomb(p, 9000, 7600), "declares 9000 x 7600"),
    "alpha": (lambda p: png(p, np.zeros((8, 8, 4), np.uint8)), r"has an alpha channel \(mode RGBA\)"),
    "16 bit": (lambda p: png(p, np.zeros((8, 8), np.uint16)), "has the mode I;16"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_what_is_no_image_is_refused_by_its_name(folder, case):
    make, message = BAD_FILES[case]
    make(folder / "bad.png")
    with pytest.raises(DdpmkitError, match=message) as caught:
        read_images(folder)
    assert "bad.png" in caught.value.message
    assert caught.value.hint


def test_mixed_sizes_and_mixed_modes(folder):
    png(folder / "a.png", np.zeros((8, 8), np.uint8))
    png(folder / "b.png", np.zeros((8, 9), np.uint8))
    with pytest.raises(DdpmkitError, match=r"b\.png' is 9 x 8 and the images before it are 8 x 8"):
        read_images(folder)
    png(folder / "b.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DdpmkitError, match=r"b\.png' is 8 x 8 colour and .*a\.png' is 8 x 8 grey"):
        read_images(folder)


def test_nothing_to_read(tmp_path, folder):
    with pytest.raises(DdpmkitError, match="there is no"):
        read_images(tmp_path / "none")
    with pytest.raises(DdpmkitError, match="there are no images in"):
        read_images(folder)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DdpmkitError, match=r"neither a folder nor a \.npz"):
        read_images(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((3, 8, 8), np.int64)}, "dtype int64"),
        ({"images": np.zeros((3, 8), np.uint8)}, "shape"),
        ({"images": np.zeros((3, 8, 8, 4), np.uint8)}, "shape"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, "empty"),
        ({"a": np.zeros((3, 8, 8), np.uint8), "b": np.zeros(3)}, "no array of images; it holds a"),
        ({"images": np.array([{}], dtype=object)}, "no readable"),
    ],
)
def test_a_foreign_archive_is_refused(tmp_path, arrays, message):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(DdpmkitError, match=message):
        read_images(path)


def test_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=np.zeros((100, 64, 64), np.uint8))
    monkeypatch.setattr("ddpmkit.distances.images.MOST_READ", 10**5)
    with pytest.raises(DdpmkitError, match="unpacks to more than"):
        read_images(path)


def test_an_array_that_declares_more_than_memory_holds(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**13, 8, 8)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DdpmkitError, match="no readable"):
        read_images(tmp_path / "a.npz")


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_damaged_file_is_never_a_crash(tmp_path, rng, suffix):
    path, chance = tmp_path / f"a{suffix}", random.Random(0)
    array = rng.integers(0, 256, (5, 8, 8)).astype(np.uint8)
    np.savez_compressed(path, images=array) if suffix == ".npz" else save_file({"images": array}, path)
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        blob = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            blob[chance.randrange(len(blob))] ^= 1 << chance.randrange(8)
        path.write_bytes(blob[: chance.choice([len(blob), chance.randrange(len(blob))])])
        try:
            read_images(path)
            read_statistics(path)
        except DdpmkitError as err:
            refused += 1
            assert str(path) in err.message  # noqa: PT017 - damage that hits no declared byte is no error
    assert refused > 50


def test_statistics_of_both_kinds(tmp_path, rng):
    mu, cov = rng.normal(size=3), np.eye(3)
    np.savez(tmp_path / "a.npz", mu=mu, sigma=cov)
    write_statistics(tmp_path / "b.safetensors", mu, cov, {"extractor": "ab", "n_reference": 7, "split": None})
    for name, meta in (("a.npz", {}), ("b.safetensors", {"extractor": "ab", "n_reference": 7, "split": None})):
        got = read_statistics(tmp_path / name)
        np.testing.assert_array_equal(got.mu, mu)
        np.testing.assert_array_equal(got.cov, cov)
        assert got.meta == meta
        assert len(got.sha256) == 64
    np.savez(tmp_path / "c.npz", images=np.zeros((2, 8, 8), np.uint8))
    assert read_statistics(tmp_path / "c.npz") is None
    assert read_statistics(tmp_path) is None
    np.savez(tmp_path / "d.npz", mu=np.array(["x"]), sigma=cov)
    with pytest.raises(DdpmkitError, match="mu and sigma are <U1"):
        read_statistics(tmp_path / "d.npz")
    with pytest.raises(DdpmkitError, match="can't write statistics"):
        write_statistics(tmp_path / "e.npz", mu, cov, {})
