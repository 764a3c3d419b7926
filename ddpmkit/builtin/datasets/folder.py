"""Image files in a folder."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ddpmkit import MOST_READ, SPLITS, Dataset, DdpmkitError, Images, names_in, param, unread, what_is_at

if TYPE_CHECKING:
    import numpy as np


# Names by which others call a split: taken for classes, they would mix what is to be held apart.
OTHERS = {"training": "train", "val": "validation", "valid": "validation", "testing": "test"}
MEANT = {**{split: split for split in SPLITS}, **OTHERS}
LEAST = {"train": 1, "validation": 1, "test": 2}
PIECE = 2**20  # bytes that are read at once
NAMED = 12  # classes that are named in a note
HINT = "make them alike: folder:...:size=32 gives them one size, colour=grey or colour=rgb one number of channels"


@dataclass(frozen=True)
class Folder(Dataset):
    """Image files, each sub-folder a class; in ``train`` and ``test`` where these are, otherwise split by content.

    An image falls into a split by u = SHA-256(seed, bytes of the file) in [0, 1): test below ``test``, validation below
    ``test`` + ``validation``, else training. So the same picture under two names never stands on both sides, and none
    moves when it is renamed or others come. docs/images.md says which files count and what is refused.
    """

    name = "folder"
    reference = "docs/images.md; Pillow's filters; Dhariwal & Nichol 2021 (arXiv 2105.05233), center_crop_arr for adm"
    path: str = param("", "the folder", locates=True)
    size: int | None = param(None, "side of the square that each image becomes; none for as they are", ge=1, le=4096)
    resize: Literal["lanczos", "box", "bicubic", "adm"] = param(
        "lanczos", "filter on the square in the middle of an image; adm as for ImageNet by Dhariwal & Nichol"
    )
    colour: Literal["auto", "grey", "rgb"] = param("auto", "make every image so; auto takes them as they are")
    test: float = param(0.1, "share of test images, where there is no folder test", gt=0, lt=1)
    validation: float = param(0.05, "share of validation images, where there is no folder validation", gt=0, lt=1)
    seed: int = param(0, "key of the split", ge=0)

    def load(self) -> Images:
        """Return the images, uint8 (N, C, H, W), and the classes where there are sub-folders.

        Raises:
            DdpmkitError: when there are none, an image is not what docs/images.md says, or a split stays empty.
        """
        from ddpmkit import image_files, read_image_files

        notes: list[str] = []
        folders = self._splits(notes)
        found = {split: image_files(place, notes.append, classes=True) for split, place in folders.items()}
        classes = {split: _classes(place, found[split], notes) for split, place in folders.items()}
        names = sorted({name for held in classes.values() for name in held})
        if "train" in folders and any((set(held) == {""}) != (names == [""]) for held in classes.values()):
            raise DdpmkitError(
                f"'{self.path}': train has folders of classes and test has none, or the other way round",
                "both must have them",
            )
        placed = self._placed(found, classes, notes)
        for split, held in placed.items():
            if len(held) < LEAST[split]:
                parts = ", ".join(f"{len(placed[s])} {s}" for s in SPLITS)
                raise DdpmkitError(
                    f"'{self.path}': {sum(map(len, found.values()))} images make {parts}; {split} needs at least "
                    f"{LEAST[split]}",
                    "add images, or set the shares test= and validation= to more",
                )
        everything = [path for split in SPLITS for path, _ in placed[split]]
        pixels = read_image_files(
            everything, size=self.size, resize=self.resize, colour=self.colour, hint=HINT, say=notes.append
        )
        labels: dict[str, np.ndarray[Any, Any]] = {}
        if names != [""]:
            labels = _labels(placed, names, notes)
        first, second = len(placed["train"]), len(placed["train"]) + len(placed["validation"])
        said = tuple(f"{Path(self.path).name}: {note}" for note in notes)
        called = tuple(names) if labels else ()
        return Images(pixels[:first], pixels[first:second], pixels[second:], 256, labels, said, called)

    def stamp(self) -> Any:
        """Return what changes with the folder and with what load says of it, without reading a file."""
        from ddpmkit import folder_stamp

        folders = self._splits([])
        below = [name for name in names_in(self.path) if what_is_at(Path(self.path) / name) == "folder"]
        return [below, {split: folder_stamp(place) for split, place in folders.items()}]

    def _splits(self, notes: list[str]) -> dict[str, Path]:
        """The folders train, test and validation, where they are there; else the folder itself, as ``""``."""
        from ddpmkit import is_visible

        if not self.path:
            raise DdpmkitError("folder needs a path", "write --dataset folder:path=FOLDER")
        place = Path(self.path)
        if (here := what_is_at(place)) != "folder":
            what = "is no folder" if here else "is not there"
            raise DdpmkitError(f"'{self.path}' {what}", "write --dataset folder:path=FOLDER")
        for split in SPLITS:
            _refuse_dangling(place / split)
        below = [n for n in names_in(place) if is_visible(n) and what_is_at(place / n) == "folder"]
        if below and all(name.lower() in MEANT for name in below):  # a Train among other vehicles is a class
            for name in below:
                if name not in SPLITS:
                    raise DdpmkitError(
                        f"'{self.path}' has a folder {name}, and splits are called {', '.join(SPLITS)}",
                        f"call it {MEANT[name.lower()]}, or name the images themselves: folder:path={place / name}",
                    )
        named = {split: place / split for split in SPLITS if what_is_at(place / split) == "folder"}
        if "train" not in named and "test" not in named:
            if self.test + self.validation >= 1:
                raise DdpmkitError(
                    f"folder: test={self.test:g} and validation={self.validation:g} leave no image to train on",
                    "their sum must be below 1, as in folder:path=..:test=0.1:validation=0.05",
                )
            return {"": place}
        for split in ("train", "test"):
            if split not in named:
                raise DdpmkitError(
                    f"'{self.path}' has a folder {'train' if split == 'test' else 'test'} and no folder {split}",
                    f"add {split}, or name the folder of images itself, whose images are then split by content",
                )
        other = [
            name for name in names_in(place)
            if name not in named and is_visible(name) and what_is_at(place / name) == "folder"
        ]  # fmt: skip
        if other:
            notes.append(f"folders beside train and test are not read: {', '.join(other[:NAMED])}")
        return named

    def _placed(
        self, found: dict[str, list[Path]], classes: dict[str, dict[str, list[Path]]], notes: list[str]
    ) -> dict[str, list[tuple[Path, str]]]:
        """Each image with its class, in its split, in the order of the paths."""
        placed: dict[str, list[tuple[Path, str]]] = {split: [] for split in SPLITS}
        prints: dict[str, set[bytes]] = {split: set() for split in SPLITS}
        for place, paths in found.items():
            class_of = {path: name for name, held in classes[place].items() for path in held}
            for path in paths:
                keyed, digest = _digests(path, f"ddpmkit/{self.seed}/split/".encode())
                split = self._split_of(place, keyed, "validation" in found)
                placed[split].append((path, class_of[path]))
                prints[split].add(digest)
        if "" in found:
            counts = ", ".join(f"{len(placed[split])} {split}" for split in SPLITS)
            notes.append(f"split by the content of the files, seed {self.seed}: {counts}")
        elif twice := len(prints["test"] & (prints["train"] | prints["validation"])):
            notes.append(f"test images that are training images too, byte for byte: {twice}")
        return placed

    def _split_of(self, place: str, digest: bytes, has_validation: bool) -> str:
        if place in ("test", "validation") or (place == "train" and has_validation):
            return place
        u = int.from_bytes(digest[:8], "big") / 2**64
        test = self.test if place == "" else 0.0
        return "test" if u < test else "validation" if u < test + self.validation else "train"


def _classes(place: Path, paths: list[Path], notes: list[str]) -> dict[str, list[Path]]:
    """The images of each class, by the first folder below ``place``; of ``""`` where there is none."""
    from ddpmkit import is_visible

    out: dict[str, list[Path]] = {}
    for path in paths:
        below = path.relative_to(place).parts
        out.setdefault(below[0] if len(below) > 1 else "", []).append(path)
    if not paths:
        raise DdpmkitError(f"there are no images in '{place}'", "images end in .png, .jpg, .jpeg, .bmp ..")
    if "" in out and len(out) > 1:
        other = next(name for name in out if name)
        raise DdpmkitError(
            f"'{out[''][0]}' lies beside folders of images such as '{other}'",
            "put it into the folder of its class, or all images into one folder",
        )
    if "" not in out:
        held = {os.path.realpath(parent) for parent in {path.parent for path in paths}}
        for folder in (place / name for name in names_in(place) if is_visible(name) and name not in out):
            _refuse_dangling(folder)
            if what_is_at(folder) != "folder":
                continue
            real = os.path.realpath(folder)
            if not folder.is_symlink() or not any(h == real or h.startswith(real + os.sep) for h in held):
                raise DdpmkitError(
                    f"'{folder}' is the folder of a class and has no images", "put images in, or take it out"
                )
            notes.append(f"'{folder}' leads to images that count already: no class")
    return out


def _refuse_dangling(path: Path) -> None:
    """Refuse a link to nothing where a folder of a class or a split may have been: it would be missed unsaid."""
    if path.is_symlink() and what_is_at(path) is None:
        raise DdpmkitError(f"'{path}' is a link to nothing", "bring back what it leads to, or take it out")


def _labels(
    placed: dict[str, list[tuple[Path, str]]], names: list[str], notes: list[str]
) -> dict[str, np.ndarray[Any, Any]]:
    """The classes as numbers, in the order of their names; what is odd about them is noted."""
    import numpy as np

    from ddpmkit.builtin.datasets._classes import class_notes

    number = {name: k for k, name in enumerate(names)}
    counts = Counter(name for held in placed.values() for _, name in held)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    notes.append("classes: " + ", ".join(f"{k} {name} ({counts[name]})" for k, name in enumerate(names[:NAMED])) + more)
    labels = {split: np.array([number[name] for _, name in held], dtype=np.int64) for split, held in placed.items()}
    notes += class_notes(labels, names)
    return labels


def _digests(path: Path, key: bytes) -> tuple[bytes, bytes]:
    """SHA-256 of a key and a file, and of the file alone; piece by piece, since a small image may have much behind it.

    Raises:
        DdpmkitError: when it can't be read, or is larger than any image.
    """
    keyed, alone = hashlib.sha256(key), hashlib.sha256()
    try:
        if path.stat().st_size > MOST_READ:
            raise DdpmkitError(f"'{path}' has more than {MOST_READ >> 30} GiB", "take it out of the folder")
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                keyed.update(piece)
                alone.update(piece)
    except OSError as err:
        raise unread(path, err) from None
    return keyed.digest(), alone.digest()
