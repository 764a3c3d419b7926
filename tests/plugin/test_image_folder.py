"""The folder data set: which images, which class, which split, which size; and what is refused, by name."""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ddpmkit
from ddpmkit import DdpmkitError, Images
from ddpmkit.distances import folder as folder_module
from ddpmkit.distances.images import read_images
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.kept import find_data
from ddpmkit.study.store import Store

RNG = np.random.default_rng(0)


def save(
    path: Path, *, size: tuple[int, int] = (6, 6), mode: str = "RGB", seed: int | None = None, **options: Any
) -> Path:
    """A random picture, another one for every path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(
        int(hashlib.sha256(str(path.name if seed is None else seed).encode()).hexdigest()[:8], 16)
    )
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path, **options)
    return path


def fill(folder: Path, count: int = 60, first: int = 0, **options: Any) -> Path:
    for k in range(first, first + count):
        save(folder / f"{k:04d}.png", **options)
    return folder


def load(path: Path, **params: Any) -> Images:
    text = "".join(f":{k}={v}" for k, v in params.items())
    images: Images = ddpmkit.build("dataset", f"folder:path={path}{text}").load()
    return images


def refusal(path: Path, **params: Any) -> DdpmkitError:
    with pytest.raises(DdpmkitError) as caught:
        load(path, **params)
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    text = "".join(f":{k}={v}" for k, v in params.items())
    with pytest.raises(DdpmkitError) as planned:  # a study asks for the stamp first, and must say the same
        find_data(
            Store(path / "nowhere"), Registry(installed=False), ddpmkit.build("dataset", f"folder:path={path}{text}")
        )
    assert (planned.value.message, planned.value.hint) == (caught.value.message, caught.value.hint)
    return caught.value


def rows(*arrays: Any) -> list[bytes]:
    return sorted(row.tobytes() for array in arrays for row in array)


# --- the split ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "wrong", "right"),
    [
        (("Train", "Test"), "Test", "test"),
        (("train", "val"), "val", "validation"),
        (("training", "test"), "training", "train"),
    ],
)
def test_splits_under_other_names_are_no_classes(tmp_path, names, wrong, right):
    """As classes they would put test images among those that are trained on."""
    for k, name in enumerate(names):
        fill(tmp_path / "d" / name, 30, 30 * k)
    error = refusal(tmp_path / "d")
    assert wrong in error.message or f"no folder {right}" in error.message
    assert right in error.hint


def test_a_class_may_be_called_as_a_split_among_others(tmp_path):
    for k, name in enumerate(("Bus", "Car", "Train")):
        fill(tmp_path / "d" / name, 30, 30 * k)
    assert set(load(tmp_path / "d").labels["train"]) == {0, 1, 2}


def test_images_are_split_by_their_content_as_documented(tmp_path: Path) -> None:
    fill(tmp_path / "d", 200)
    images = load(tmp_path / "d", test=0.2, validation=0.1, seed=3)
    expected: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
    for path in sorted((tmp_path / "d").iterdir()):
        u = int.from_bytes(hashlib.sha256(b"ddpmkit/3/split/" + path.read_bytes()).digest()[:8], "big") / 2**64
        split = "test" if u < 0.2 else "validation" if u < 0.3 else "train"
        expected[split].append(np.asarray(Image.open(path)).transpose(2, 0, 1))
    for split, held in expected.items():
        assert np.array_equal(getattr(images, split), np.stack(held))
    assert 20 < len(images.test) < 60
    assert images.labels == {}
    assert any(f"{len(images.train)} train, {len(images.validation)} validation" in note for note in images.notes)


def test_renaming_moves_no_image_and_more_images_move_none(tmp_path: Path) -> None:
    one, other = fill(tmp_path / "one", 80), fill(tmp_path / "other", 80)
    for k, path in enumerate(sorted(other.iterdir())):
        path.rename(other / f"x{97 * k % 80}.png")
    before, renamed = load(one), load(other)
    fill(one, 40, first=500)
    after = load(one)
    for split in ("train", "validation", "test"):
        assert rows(getattr(before, split)) == rows(getattr(renamed, split))
        assert set(rows(getattr(before, split))) < set(rows(getattr(after, split)))


def test_a_picture_under_two_names_stands_on_one_side(tmp_path: Path) -> None:
    folder = fill(tmp_path / "d", 100)
    for path in sorted(folder.iterdir()):
        (folder / f"copy-{path.name}").write_bytes(path.read_bytes())
    images = load(folder)
    sides = [set(rows(getattr(images, split))) for split in ("train", "validation", "test")]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]
    assert len(images.train) == 2 * len(sides[0])


def test_another_seed_is_another_split(tmp_path: Path) -> None:
    fill(tmp_path / "d")
    assert rows(load(tmp_path / "d").test) != rows(load(tmp_path / "d", seed=1).test)


def test_train_and_test_are_taken_as_they_are_and_validation_where_it_is(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 100)):
        fill(tmp_path / split, 40, first)
    images = load(tmp_path, validation=0.3)
    held = {p.name: np.asarray(Image.open(p)).transpose(2, 0, 1) for p in tmp_path.rglob("*.png")}
    assert rows(images.test) == rows([v for k, v in held.items() if k >= "0100"])
    assert rows(images.train, images.validation) == rows([v for k, v in held.items() if k < "0100"])
    assert 4 < len(images.validation) < 22
    fill(tmp_path / "validation", 5, 200)
    fill(tmp_path / "extra", 5, 300)
    images = load(tmp_path)
    assert (len(images.train), len(images.validation), len(images.test)) == (40, 5, 40)
    assert any("not read: extra" in note for note in images.notes)


def test_a_test_image_that_is_a_training_image_is_said(tmp_path: Path) -> None:
    fill(tmp_path / "train", 40)
    fill(tmp_path / "test", 10, 100)
    (tmp_path / "test" / "again.png").write_bytes((tmp_path / "train" / "0003.png").read_bytes())
    assert any("training images too, byte for byte: 1" in note for note in load(tmp_path).notes)


# --- classes ------------------------------------------------------------------------------------------------------


def test_a_sub_folder_is_a_class_and_what_is_below_it_belongs_to_it(tmp_path: Path) -> None:
    for name, first in (("zebra", 0), ("ape", 100), ("ape/young", 200)):
        fill(tmp_path / name, 60, first)
    images = load(tmp_path)
    held = {np.asarray(Image.open(p)).transpose(2, 0, 1).tobytes(): p for p in tmp_path.rglob("*.png")}
    for split in ("train", "validation", "test"):
        found = [held[row.tobytes()].relative_to(tmp_path).parts[0] for row in getattr(images, split)]
        assert images.labels[split].tolist() == [["ape", "zebra"].index(name) for name in found]
        assert images.labels[split].dtype == np.int64
    assert any("classes: 0 ape (120), 1 zebra (60)" in note for note in images.notes)
    assert images.classes == ("ape", "zebra")


def test_train_and_test_may_hold_classes(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 500)):
        for k, name in enumerate(("a", "b")):
            fill(tmp_path / split / name, 30, first + 100 * k)
    images = load(tmp_path)
    assert images.labels["test"].tolist() == [0] * 30 + [1] * 30
    fill(tmp_path / "test" / "c", 3, 900)
    images = load(tmp_path)
    assert images.labels["test"].tolist() == [0] * 30 + [1] * 30 + [2] * 3
    assert any("without a training image: c" in note for note in images.notes)


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "list.txt").write_text("x")
    assert f"'{tmp_path / 'b'}' is the folder of a class and has no images" in refusal(tmp_path).message


def test_a_class_that_occurs_once_is_said(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    save(tmp_path / "b" / "one.png")
    images = load(tmp_path)
    assert any("classes of one image: b" in note for note in images.notes)
    assert sum((labels == 1).sum() for labels in images.labels.values()) == 1


def test_images_beside_folders_of_classes_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    save(tmp_path / "lost.png")
    assert f"'{tmp_path / 'lost.png'}' lies beside folders of images such as 'a'" in refusal(tmp_path).message


def test_one_half_of_a_split_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    assert "has a folder train and no folder test" in refusal(tmp_path).message
    fill(tmp_path / "test" / "a", 20, 100)
    assert "train has folders of classes and test has none, or the other way" in refusal(tmp_path).message


# --- odd places ---------------------------------------------------------------------------------------------------


def test_hidden_folders_links_and_circles(tmp_path: Path) -> None:
    fill(tmp_path / "d" / "a")
    fill(tmp_path / "elsewhere", 20, 100)
    fill(tmp_path / "d" / ".cache", 5, 200)
    fill(tmp_path / "d" / "__MACOSX", 5, 300)
    (tmp_path / "d" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d" / "a" / "up").symlink_to(tmp_path / "d")
    (tmp_path / "d" / "again").symlink_to(tmp_path / "d" / "a")
    images = load(tmp_path / "d")
    assert sum(map(len, (images.train, images.validation, images.test))) == 80
    assert any("0 a (60), 1 b (20)" in note for note in images.notes)
    assert any("links back to a folder above them, not followed: 1" in note for note in images.notes)
    assert any("leads to images that count already" in note for note in images.notes)


@pytest.mark.parametrize("where", ["b", "train", "validation", "test"])
def test_a_link_to_nothing_where_a_class_or_a_split_may_have_been_is_refused(tmp_path: Path, where: str) -> None:
    for k, split in enumerate(("",) if where == "b" else ("train", "test")):
        if split != where:
            fill(tmp_path / split / "a", 60, 100 * k)
            fill(tmp_path / split / "c", 60, 1000 + 100 * k)
    (tmp_path / where).symlink_to(tmp_path / "lost drive" / "b")
    assert f"'{tmp_path / where}' is a link to nothing" in refusal(tmp_path).message


def test_a_link_to_an_empty_folder_is_an_empty_class(tmp_path: Path) -> None:
    fill(tmp_path / "d" / "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "d" / "b").symlink_to(tmp_path / "empty")
    assert f"'{tmp_path / 'd' / 'b'}' is the folder of a class and has no images" in refusal(tmp_path / "d").message
    (tmp_path / "d" / "b").unlink()
    fill(tmp_path / "d" / "c" / "deep", 60, 100)
    (tmp_path / "d" / "b").symlink_to(tmp_path / "d" / "c")  # its images lie deeper, and count there
    assert any("leads to images that count already" in note for note in load(tmp_path / "d").notes)


def test_places_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(DdpmkitError, match="folder needs a path"):
        ddpmkit.build("dataset", "folder").load()
    assert "is not there" in refusal(tmp_path / "no").message
    assert "there are no images in" in refusal(tmp_path).message
    assert "is no folder" in refusal(save(tmp_path / "a.png")).message


def test_two_images_in_all_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    message = refusal(tmp_path).message
    assert "2 images make" in message
    assert "needs at least" in message


def test_shares_that_leave_nothing_to_train_on_are_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path)
    err = refusal(tmp_path, test=0.5, validation=0.5)
    assert "test=0.5 and validation=0.5 leave no image to train on" in err.message
    assert "below 1" in str(err.hint)
    fill(tmp_path / "d" / "train", 40)
    fill(tmp_path / "d" / "test", 10, 100)
    assert len(load(tmp_path / "d", test=0.9, validation=0.4).test) == 10  # test= is not asked there


def test_more_than_is_read_is_the_fault_of_no_single_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "grey", 60, mode="L")
    fill(tmp_path / "colour", 60)
    monkeypatch.setattr(folder_module, "MOST_READ", 60 * 36)
    assert len(load(tmp_path / "grey").train)  # a byte a pixel
    assert len(load(tmp_path / "colour", colour="grey").train)
    assert len(load(tmp_path / "colour", size=3).train)
    for name, options in (("colour", {}), ("grey", {"colour": "rgb"})):
        err = refusal(tmp_path / name, **options)
        assert err.message.startswith("60 images such as")
        assert "size=" in str(err.hint)


# --- image files --------------------------------------------------------------------------------------------------


def broken(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def deep(path: Path) -> None:
    Image.fromarray((RNG.random((6, 6)) * 60000).astype(np.uint16)).save(path)


def palette(path: Path) -> None:
    image = Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE)
    image.save(path, transparency=0)


def alpha(path: Path) -> None:
    Image.open(path).convert("RGBA").save(path)


def grey(path: Path) -> None:
    Image.open(path).convert("L").save(path)


def larger(path: Path) -> None:
    Image.open(path).resize((9, 6)).save(path)


def animated(path: Path) -> None:
    frames = [Image.fromarray(RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(path.with_suffix(".gif"), save_all=True, append_images=frames[1:])
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (broken, "can't be read"), (deep, "has the mode I;16"), (palette, "has a transparent colour"),
        (alpha, "has an alpha channel"),
        (animated, "holds 3 frames"), (grey, "grey"), (larger, "is 9 x 6 and the images before it are 6 x 6"),
    ],
)  # fmt: skip
def test_one_bad_image_among_many_is_named(tmp_path: Path, spoil: Any, told: str) -> None:
    fill(tmp_path, 500 if spoil is broken else 60)
    spoil(tmp_path / "0033.png")
    err = refusal(tmp_path)
    assert told in err.message
    assert str(tmp_path / "0033.") in err.message
    if spoil in (larger, grey):
        assert "size=32" in str(err.hint)
        load(tmp_path, size=6, colour="rgb")


def test_an_image_that_lies_on_its_side_is_turned(tmp_path: Path) -> None:
    fill(tmp_path, 60, size=(6, 4), mode="L")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(tmp_path / "0007.png").rotate(90, expand=True)
    turned.save(tmp_path / "0007.png", exif=exif)
    images = load(tmp_path)
    whole = np.asarray(turned.rotate(-90, expand=True))
    assert whole.tobytes() in rows(images.train, images.validation, images.test)


def test_training_and_evaluate_read_the_same_pixels(tmp_path: Path) -> None:
    fill(tmp_path, 30)
    fill(tmp_path, 30, 100, mode="RGB", size=(6, 6))
    for k in range(5):
        Image.open(tmp_path / f"000{k}.png").save(tmp_path / f"000{k}.jpg")
    images = load(tmp_path)
    assert rows(images.train, images.validation, images.test) == rows(read_images(tmp_path))


# --- size and colour ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lanczos", "box", "bicubic"])
def test_the_middle_is_cut_out_and_filtered_once(tmp_path: Path, how: str) -> None:
    for k in range(60):
        save(tmp_path / f"{k}.png", size=(30 + k % 7, 20 + k % 5))
    images = load(tmp_path, size=8, resize=how)
    expected = []
    for path in tmp_path.iterdir():
        image = Image.open(path)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        cut = image.crop((left, top, left + side, top + side))
        small = cut.resize((8, 8), Image.Resampling[how.upper()])
        expected.append(np.asarray(small).transpose(2, 0, 1))
    assert rows(images.train, images.validation, images.test) == rows(expected)


def test_box_on_a_whole_factor_is_the_mean_of_blocks(tmp_path: Path) -> None:
    fill(tmp_path, 40, size=(16, 16), mode="L")
    images = load(tmp_path, size=8, resize="box")
    sharp = load(tmp_path)
    for split in ("train", "validation", "test"):
        blocks = getattr(sharp, split).reshape(-1, 8, 2, 8, 2).astype(float).mean((2, 4))
        assert np.abs(blocks - getattr(images, split)[:, 0]).max() <= 1  # rounded once a direction


def test_adm_is_center_crop_arr(tmp_path: Path) -> None:
    """guided_diffusion/image_datasets.py of openai/guided-diffusion, written out."""
    for k in range(50):
        save(tmp_path / f"{k}.png", size=(61 + k, 45))
    images = load(tmp_path, size=9, resize="adm")
    expected = []
    for path in tmp_path.iterdir():
        image = Image.open(path)
        while min(*image.size) >= 2 * 9:
            image = image.resize(tuple(x // 2 for x in image.size), resample=Image.Resampling.BOX)
        scale = 9 / min(*image.size)
        image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.Resampling.BICUBIC)
        arr = np.array(image)
        y, x = (arr.shape[0] - 9) // 2, (arr.shape[1] - 9) // 2
        expected.append(arr[y : y + 9, x : x + 9].transpose(2, 0, 1))
    assert rows(images.train, images.validation, images.test) == rows(expected)


def test_an_image_that_is_smaller_is_enlarged_aloud(tmp_path: Path) -> None:
    fill(tmp_path, 40, size=(12, 12))
    fill(tmp_path, 3, 100, size=(5, 9))
    images = load(tmp_path, size=8)
    assert any("smaller than 8 x 8, enlarged to it: 3 of 43" in note for note in images.notes)


def test_colour_is_made_grey_or_grey_colour(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path, 20, 100, mode="L")
    grey_ones, colour = load(tmp_path, colour="grey"), load(tmp_path, colour="rgb")
    assert grey_ones.train.shape[1:] == (1, 6, 6)
    assert colour.train.shape[1:] == (3, 6, 6)
    path = tmp_path / "0000.png"
    red, green, blue = np.asarray(Image.open(path)).astype(float).transpose(2, 0, 1)
    assert any(
        np.abs(row[0] - (0.299 * red + 0.587 * green + 0.114 * blue)).max() < 1
        for row in np.concatenate([grey_ones.train, grey_ones.validation, grey_ones.test])
    )


def test_images_that_are_not_square_are_taken(tmp_path: Path) -> None:
    fill(tmp_path, 60, size=(7, 5))
    assert load(tmp_path).train.shape[1:] == (3, 5, 7)


def test_a_stamp_holds_all_that_load_would_say_or_refuse(tmp_path: Path) -> None:
    fill(tmp_path / "d" / "a", 60)
    fill(tmp_path / "far", 3, 100)
    dataset = ddpmkit.build("dataset", f"folder:path={tmp_path / 'd'}")
    stamps = [dataset.stamp()]
    for change in (
        lambda: (tmp_path / "d" / "a" / "deep").mkdir(),  # of no account here, and as a class it would be empty
        lambda: (tmp_path / "d" / "a" / "x.heic").touch(),  # said
        lambda: (tmp_path / "d" / "a" / "lost").symlink_to("nowhere"),  # said
        lambda: (tmp_path / "d" / "a" / "up").symlink_to(tmp_path / "d"),  # said
        lambda: (tmp_path / "d" / "b").symlink_to(tmp_path / "far"),  # a class
        lambda: (tmp_path / "d" / "c").symlink_to("nowhere"),  # refused
    ):
        change()
        stamps.append(dataset.stamp())
    assert all(one != other for one, other in itertools.pairwise(stamps))


def test_every_note_begins_with_the_folders_name_and_none_is_of_classes_in_subfolders(tmp_path: Path) -> None:
    for name in ("a", "images are in subfolders"):
        fill(tmp_path / "d" / name, 40, len(name))
    (tmp_path / "d" / "images are in subfolders" / "x.heic").touch()
    notes = load(tmp_path / "d").notes
    assert all(note.startswith("d: ") for note in notes)
    assert len(notes) == 3  # what is not read, the split, the classes
    assert any("not read: 1 (.heic)" in note for note in notes)


def test_a_stamp_is_of_names_and_times(tmp_path: Path) -> None:
    fill(tmp_path / "a", 20)
    dataset = ddpmkit.build("dataset", f"folder:path={tmp_path}")
    stamps = [dataset.stamp(), dataset.stamp()]
    assert stamps[0] == stamps[1]
    save(tmp_path / "a" / "0005.png", seed=77)
    stamps.append(dataset.stamp())
    os.utime(tmp_path / "a" / "0006.png", ns=(1, 1))
    stamps.append(dataset.stamp())
    (tmp_path / "b").mkdir()
    stamps.append(dataset.stamp())
    assert all(one != other for one, other in itertools.pairwise(stamps[1:]))
