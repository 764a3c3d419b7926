"""What counts as an image: which files of a folder, which modes, which axis, which range; docs/images.md."""

import os
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ddpmkit.distances.folder import image_files, read_folder
from ddpmkit.distances.images import read_images
from ddpmkit.distances.layout import channels_first
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


def png(path, value=0, size=(4, 4)):
    """A grey image of one level, which says which file was read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, "PNG")
    return path


def values(array):
    return array[:, 0, 0, 0].tolist()


# --- which files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hidden", [".ipynb_checkpoints/a.png", ".a.png", "deep/.cache/x/a.png", "__MACOSX/a.png", "b/__MACOSX/._a.png"]
)
def test_hidden_files_and_folders_are_no_images(folder, hidden):
    png(folder / "a.png", 7)
    png(folder / hidden, 200)
    assert values(read_folder(folder)) == [7]


def test_a_folder_that_is_itself_below_a_hidden_one_is_read(tmp_path):
    png(tmp_path / ".cache" / "run" / "a.png", 7)
    assert values(read_folder(tmp_path / ".cache" / "run")) == [7]


def test_a_file_counts_once_however_many_links_lead_to_it(folder, tmp_path):
    png(folder / "b.png", 7)
    (folder / "a.png").symlink_to("b.png")
    (folder / "c.png").symlink_to(folder / "b.png")
    png(tmp_path / "elsewhere" / "d.png", 9)
    (folder / "d.png").symlink_to(tmp_path / "elsewhere" / "d.png")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    said = []
    assert values(read_folder(folder, said.append)) == [7, 9]
    assert said == [f"'{folder}': further names, by links, of images that count once: 3"]


def test_links_alone_make_a_folder(folder, tmp_path):
    """A subset as people make it: a folder of links."""
    for i in range(4):
        png(tmp_path / "all" / f"{i}.png", i)
    for i in (2, 0):
        (folder / f"{i}.png").symlink_to(tmp_path / "all" / f"{i}.png")
    assert values(read_folder(folder)) == [0, 2]


@pytest.mark.parametrize("target", [".", "..", "../..", "sub", "other"])
def test_a_circle_of_links_ends(folder, target):
    png(folder / "sub" / "a.png", 7)
    (folder / "sub" / "round").symlink_to(target)
    (folder / "sub" / "other").symlink_to("round")
    said = []
    assert values(read_folder(folder, said.append)) == [7]
    assert ("links to nothing: 2 (other, round)" in " ".join(said)) == (target in ("sub", "other"))
    if target != "other":  # a link to itself by way of another: nothing is behind it, and it is no image's name
        assert ("links back" in " ".join(said)) == (target != "sub")


def test_what_is_behind_a_name_is_a_file(folder):
    png(folder / "a.png", 7)
    (folder / "b.png").symlink_to("nowhere.png")
    with pytest.raises(DdpmkitError, match=r"b\.png' is a link to nothing"):
        read_folder(folder)
    (folder / "b.png").unlink()
    os.mkfifo(folder / "b.png")  # it would be waited for
    with pytest.raises(DdpmkitError, match=r"b\.png' is no file"):
        read_folder(folder)
    os.mkfifo(folder / "c.npz")
    with pytest.raises(DdpmkitError, match=r"c\.npz' is no file"):
        read_images(folder / "c.npz")


def test_images_in_subfolders_are_read_and_said(folder):
    said = []
    png(folder / "a.png")
    image_files(folder, said.append)
    assert said == []
    (folder / "cats").mkdir()
    png(folder / "cats" / "b.png", 2)
    assert len(image_files(folder, said.append)) == 2
    assert said == [f"'{folder}': 1 of its 2 images are in subfolders"]


def test_images_that_are_not_read_are_said(folder):
    png(folder / "a.png")
    for name in ("b.heic", "c.AVIF", "notes.txt"):
        (folder / name).write_text("x")
    said = []
    read_folder(folder, said.append)
    assert said == [f"'{folder}': image files of a kind that is not read: 2 (.avif, .heic)"]


def test_of_any_tree_the_visible_files_are_read_once(tmp_path):
    """Random trees of hidden and visible folders, files and links, against a walk that looks at real paths alone."""
    chance = random.Random(0)
    names = ("a", "b", ".h", "__MACOSX", "c.png", ".d.png", "e.png", "f.txt")
    links = 0
    for trial in range(60):
        root = tmp_path / str(trial)
        root.mkdir()
        places, wanted = [root], set()
        for _ in range(chance.randrange(1, 14)):
            place, name = chance.choice(places), chance.choice(names)
            path = place / name
            if os.path.lexists(path):
                continue
            hidden = any(p.startswith(".") or p == "__MACOSX" for p in path.relative_to(root).parts)
            if "." in name.strip("."):
                png(path, 1)
                wanted |= {os.path.realpath(path)} if name.endswith(".png") and not hidden else set()
            else:
                path.mkdir()
                places.append(path)
        for i in range(chance.randrange(4)):  # links to folders and files that are visible anyway
            visible = [p for p in places if not {".h", "__MACOSX"} & set(p.relative_to(root).parts)]
            target = chance.choice([*visible, *map(type(root), sorted(wanted))])
            (chance.choice(visible) / f"link{i}{target.suffix}").symlink_to(target)
            links += 1
        assert {os.path.realpath(p) for p in image_files(root)} == wanted
        assert len(image_files(root)) == len(wanted)
    assert links > 40


# --- what an image is ---------------------------------------------------------------------------------------------


def raw_png(path, depth, kind, *chunks):
    """A 4x4 PNG of any bit depth and colour type."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width = {0: 1, 2: 3, 4: 2, 6: 4}[kind] * depth * 4 // 8
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, depth, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress((b"\0" + bytes(range(width))) * 4)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*c) for c in chunks) + data)


def saved(mode, **options):
    def make(path):
        Image.new(mode, (4, 4)).save(path, options.pop("format", "PNG"), **options)

    return make


def planar_tiff(bits):
    """An uncompressed colour TIFF of so many bits, each channel a plane of its own, which Pillow can't write."""

    def make(path):
        order, values = ("H", [0x1234] * 16) if bits == 16 else ("B", [0x12] * 16)
        plane = struct.pack(f"<16{order}", *values)
        start = 8 + 2 + 12 * 10 + 4  # the tags, then what does not fit into them, then the planes
        first = start + 6 + 12 + 12
        tags = [
            (256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, start), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 3, start + 6), (277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 3, start + 18), (284, 3, 1, 2),
        ]  # fmt: skip
        listed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
        told = struct.pack("<3H3I3I", bits, bits, bits, *(first + k * len(plane) for k in range(3)), *[len(plane)] * 3)
        path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + listed + bytes(4) + told + 3 * plane)

    return make


def palette(path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(colours).quantize(4).save(path, "PNG", transparency=1)


def animated(kind):
    def make(path):
        frames = [Image.new("RGB", (4, 4), (60 * i, 0, 0)) for i in range(3)]
        frames[0].save(path, kind, save_all=True, append_images=frames[1:])

    return make


REFUSED = {
    "RGBA": (saved("RGBA"), r"has an alpha channel \(mode RGBA\)"),
    "LA": (saved("LA"), r"has an alpha channel \(mode LA\)"),
    "palette": (palette, r"has a transparent colour \(mode P\)"),
    "grey": (lambda p: raw_png(p, 8, 0, (b"tRNS", b"\0\1")), r"has a transparent colour \(mode L\)"),
    "black and white": (lambda p: raw_png(p, 1, 0, (b"tRNS", b"\0\1")), r"has a transparent colour \(mode 1\)"),
    "RGB": (lambda p: raw_png(p, 8, 2, (b"tRNS", b"\0\1\0\2\0\3")), r"has a transparent colour \(mode RGB\)"),
    "16-bit grey": (lambda p: raw_png(p, 16, 0), "has the mode I;16"),
    "16-bit RGB": (lambda p: raw_png(p, 16, 2), "has 16 bits a channel"),
    "16-bit planar tiff": (planar_tiff(16), "has 16 bits a channel"),
    "16-bit ppm": (lambda p: p.write_bytes(b"P6 4 4 65535\n" + bytes(96)), "has 16 bits a channel"),
    "floats": (saved("F", format="TIFF"), "has the mode F"),
    "CMYK": (saved("CMYK", format="JPEG"), "has the mode CMYK"),
    "GIF": (animated("GIF"), "holds 3 frames"),
    "APNG": (animated("PNG"), "holds 3 frames"),
    "WebP": (animated("WEBP"), "holds 3 frames"),
    "pages": (animated("TIFF"), "holds 3 frames"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_have_to_be_changed_is_refused_by_its_name(folder, case):
    make, message = REFUSED[case]
    make(folder / "bad.png")
    with pytest.raises(DdpmkitError, match=f"bad.png' {message}") as caught:
        read_folder(folder)
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_image_is_read_as_it_is_looked_at(folder, kind):
    """EXIF says which side is up; a viewer turns the image, and so does the reader."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.zeros((4, 8), np.uint8)
    lying[:, :4] = 250
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    Image.fromarray(lying).convert("RGB").save(folder / "a.png", kind, exif=exif, **options)
    Image.fromarray(np.rot90(lying, -1).copy()).convert("RGB").save(folder / "b.png", kind, **options)
    got = read_folder(folder)
    assert got.shape == (2, 3, 8, 4)
    np.testing.assert_allclose(got[0].astype(int), got[1].astype(int), atol=3)
    assert got[0, 0, 0, 0] > 240
    assert got[0, 0, -1, 0] < 10


# --- floats and scales --------------------------------------------------------------------------------------------


def npz(path, array):
    np.savez(path, images=array)
    return path


def test_floats_that_are_never_negative_need_a_range(tmp_path, rng):
    levels = rng.integers(0, 256, (5, 4, 4), dtype=np.uint8)
    for name, array, span in (
        ("unit", (levels / 255).astype(np.float32), (0.0, 1.0)),
        ("bytes", levels.astype(np.float32), (0.0, 255.0)),
        ("half", (levels / 255).astype(np.float16), (0.0, 1.0)),
    ):
        path = npz(tmp_path / f"{name}.npz", array)
        with pytest.raises(DdpmkitError) as caught:
            read_images(path)
        assert "--range" in caught.value.hint
        np.testing.assert_array_equal(read_images(path, span=span)[:, 0], levels)
    plain = npz(tmp_path / "plain.npz", (levels / 127.5 - 1).astype(np.float32))
    np.testing.assert_array_equal(read_images(plain)[:, 0], levels)
    np.testing.assert_array_equal(read_images(plain, span=(-1.0, 1.0))[:, 0], levels)
    bright = npz(tmp_path / "bright.npz", np.full((2, 4, 4), 0.5, np.float32))
    assert set(read_images(bright, span=(-1.0, 1.0)).flat) == {191}
    with pytest.raises(DdpmkitError, match=r"outside \[0, 1\]"):
        read_images(plain, span=(0.0, 1.0))


@pytest.mark.parametrize(
    ("array", "levels"),
    [
        (np.arange(32, dtype=np.uint8).reshape(2, 4, 4) % 2, 256),  # 0 and 1
        (np.arange(32, dtype=np.uint8).reshape(2, 4, 4) % 17, 256),  # 17 levels taken for 256
        (np.linspace(-0.01, 0.01, 32).reshape(2, 4, 4), 256),
        (np.linspace(-1, -0.9, 32).reshape(2, 4, 4).astype(np.float16), 17),
    ],
)
def test_a_sliver_of_the_scale_is_said(tmp_path, array, levels):
    said = []
    read_images(npz(tmp_path / "a.npz", array), levels, say=said.append)
    assert len(said) == 1
    assert "on a scale of" in said[0]
    wide = np.linspace(-1, 1, 32).reshape(2, 4, 4)
    read_images(npz(tmp_path / "b.npz", wide), levels, say=said.append)
    assert len(said) == 1


# --- which axis ---------------------------------------------------------------------------------------------------


def layout(array, **options):
    return channels_first(array, "a", **{"channels": (1, 2, 3, 4), "square": True, "hint": "say which", **options})


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [5, 8])
def test_both_orders_are_read(rng, channels, size):
    array = rng.integers(0, 256, (2, channels, size, size), dtype=np.uint8)
    for given, said in ((array, "(N, C, H, W)"), (array.transpose(0, 2, 3, 1), "(N, H, W, C)")):
        found, order = layout(given)
        assert order == said
        np.testing.assert_array_equal(found, array)
        assert found.flags.c_contiguous
    found, order = layout(array[:, 0])
    assert order == "(N, H, W)"
    np.testing.assert_array_equal(found, array[:, :1])


@pytest.mark.parametrize("side", [2, 3, 4])
def test_an_array_with_two_readings_is_refused_with_both(rng, side):
    array = rng.integers(0, 256, (5, side, side, side), dtype=np.uint8)
    with pytest.raises(DdpmkitError) as caught:
        layout(array)
    assert "(N, C, H, W)" in caught.value.message
    assert "(N, H, W, C)" in caught.value.message
    np.testing.assert_array_equal(layout(array, layout="nchw")[0], array)
    np.testing.assert_array_equal(layout(array, layout="nhwc")[0], array.transpose(0, 3, 1, 2))
    assert layout(array[:, :1, :1, :1])[0].shape == (5, 1, 1, 1)  # both are the same


@pytest.mark.parametrize(
    "shape", [(0, 3, 8, 8), (5, 8, 8), (5, 5, 8, 8), (5, 8, 9, 3), (5, 64), (5, 3, 8), (2, 1, 3, 8, 8)]
)
def test_what_has_no_reading_is_refused_by_its_shape(shape):
    read = {(5, 8, 8): (5, 1, 8, 8), (5, 8, 9, 3): (5, 3, 8, 9), (5, 3, 8): (5, 1, 3, 8)}  # images need not be square
    if shape in read:
        assert layout(np.zeros(shape, np.uint8))[0].shape == read[shape]
        return
    with pytest.raises(DdpmkitError) as caught:
        layout(np.zeros(shape, np.uint8))
    assert str(shape) in caught.value.message


def test_a_file_of_samples_that_can_be_read_two_ways_is_refused(tmp_path, rng):
    path = npz(tmp_path / "a.npz", rng.integers(0, 256, (5, 3, 3, 3), dtype=np.uint8))
    with pytest.raises(DdpmkitError, match="can be read as"):
        read_images(path)


def test_latents_are_read_where_the_reference_has_as_many_channels(tmp_path, rng):
    array = rng.integers(0, 256, (5, 4, 8, 8), dtype=np.uint8)
    path = npz(tmp_path / "a.npz", array)
    with pytest.raises(DdpmkitError, match="shape"):
        read_images(path)  # the fourth may be alpha
    np.testing.assert_array_equal(read_images(path, channels=4), array)


# --- the npz data set ---------------------------------------------------------------------------------------------


def dataset(path, **arrays):
    options = {k: arrays.pop(k) for k in ("layout", "levels") if k in arrays}
    np.savez(path, **arrays)
    text = "".join(f":{k}={v}" for k, v in options.items())
    return Registry(installed=False).build("dataset", f"npz:path={path}:validation=2{text}").load()


def test_a_data_set_says_how_it_was_read(tmp_path, rng):
    images = rng.integers(0, 256, (9, 2, 8, 8), dtype=np.uint8)
    first = dataset(tmp_path / "a.npz", train_images=images, test_images=images)
    assert first.notes == ("a.npz: train_images (9, 2, 8, 8) were read as (N, C, H, W)",)
    last = images.transpose(0, 2, 3, 1)
    both = dataset(tmp_path / "b.npz", train_images=images, test_images=last)
    assert len(both.notes) == 2
    assert both.fingerprint() == first.fingerprint()
    assert dataset(tmp_path / "c.npz", train_images=images[:, 0], test_images=images[:, 0]).notes == ()


def test_a_data_set_of_tiny_images_is_told_its_layout(tmp_path, rng):
    images = rng.integers(0, 256, (9, 3, 3, 3), dtype=np.uint8)
    with pytest.raises(DdpmkitError, match="train_images of shape") as caught:
        dataset(tmp_path / "a.npz", train_images=images, test_images=images)
    assert "layout=nchw" in caught.value.hint
    found = dataset(tmp_path / "a.npz", train_images=images, test_images=images, layout="nhwc")
    np.testing.assert_array_equal(found.test, images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(9) / 2, "has dtype float64"),
        (np.arange(9) - 1, r"holds -1 .. 7"),
        (np.arange(8), r"has shape \(8,\) for 9 images"),
        (np.eye(9, dtype=np.int64), r"has shape \(9, 9\) for 9 images"),
        (np.arange(9) > 3, "has dtype bool"),
        (np.array(list("abcdefghi")), "has dtype <U1"),
        (np.arange(9).astype(np.uint64) + np.uint64(2**63), "holds 9223372036854775808"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_that_are_no_classes_are_refused(tmp_path, rng, labels, message, split):
    images = rng.integers(0, 256, (9, 8, 8), dtype=np.uint8)
    arrays = {"train_images": images, "test_images": images, "train_labels": np.arange(9), "test_labels": np.arange(9)}
    with pytest.raises(DdpmkitError, match=f"{split}_labels {message}") as caught:
        dataset(tmp_path / "a.npz", **{**arrays, f"{split}_labels": labels})
    assert caught.value.hint


def test_labels_of_one_split_alone_are_left_out_aloud(tmp_path, rng):
    images = rng.integers(0, 256, (9, 8, 8), dtype=np.uint8)
    found = dataset(tmp_path / "a.npz", train_images=images, test_images=images, train_labels=np.arange(9))
    assert found.labels == {}
    assert found.notes == ("a.npz: train_labels were left out, since the other split has none",)


def test_what_a_resize_adds_around_0_and_1_is_asked_about(tmp_path, rng):
    array = rng.random((4, 8, 8))
    array[0, 0, 0] = -1e-3
    with pytest.raises(DdpmkitError, match=r"or all of \[0, 1\] and what a resize adds around it") as caught:
        read_images(npz(tmp_path / "a.npz", array), 256)
    assert caught.value.hint.startswith("say which values are black and white")
    array[0, 0, 0] = -0.9
    assert read_images(npz(tmp_path / "b.npz", array), 256).shape == (4, 1, 8, 8)


def test_sixteen_bits_a_pixel_are_not_sixteen_bits_a_channel(folder):
    header = struct.pack("<2sIHHI", b"BM", 54 + 32, 0, 0, 54) + struct.pack(
        "<IiiHHIIiiII", 40, 4, 4, 1, 16, 0, 32, 0, 0, 0, 0
    )
    (folder / "a.bmp").write_bytes(header + struct.pack("<16H", *[0x7FFF] * 16))
    assert set(read_folder(folder).ravel().tolist()) == {255}


def test_of_a_phone_s_jpeg_the_image_is_read(folder):
    first, preview = (Image.new("RGB", (8, 8), colour) for colour in ((200, 10, 10), (0, 0, 0)))
    first.save(folder / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    assert read_folder(folder)[0, 0].min() > 150


def test_a_tiff_of_8_bits_is_read_plane_by_plane(folder):
    planar_tiff(8)(folder / "a.tif")
    read = read_folder(folder)
    assert read.shape == (1, 3, 4, 4)
    assert (read == 0x12).all()


def test_a_folder_of_links_is_looked_at_once_a_link(folder, tmp_path, monkeypatch):
    """A hundred thousand links into one folder, as data sets of hospitals and of annex repositories are."""
    for k in range(40):
        png(tmp_path / "real" / f"{k}.png", k)
        (folder / f"{k:02}.png").symlink_to(tmp_path / "real" / f"{k}.png")
    (folder / "again.png").symlink_to(folder / "00.png")  # a link to a link
    (folder / "relative.png").symlink_to("../real/1.png")
    looks = []
    for name in ("stat", "lstat"):
        whole = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, whole=whole, **k: looks.append(a) or whole(*a, **k))
    paths, said = image_files(folder), []
    assert len(looks) < 42 + 60  # and not one for each part of each path
    monkeypatch.undo()
    assert [p.name for p in image_files(folder, said.append)] == [p.name for p in paths]
    assert {os.path.realpath(p) for p in paths} == {str(tmp_path / "real" / f"{k}.png") for k in range(40)}
    assert said == [f"'{folder}': further names, by links, of images that count once: 2"]
