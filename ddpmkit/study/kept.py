"""Data in the store: decoded once, as memory-mapped files named by their content, and found again by a stamp.

    store/data/<content hash>/   train.npy validation.npy test.npy labels-train.npy .. COMMIT.json
    store/data/stamps/           <hash of spec and stamp>.json: which content that was
    store/data/answers/          what was found out about a content, where it takes all pixels

All processes of a machine share the pages of one file. Sizes are looked at whenever a content is opened; its hash is
taken again by each process that works on it (study/data.py).
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddpmkit import files
from ddpmkit.damage import DAMAGE
from ddpmkit.files import Chunk
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import SPLITS, Dataset, Images, Outline
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.store import Store

TICK = 2 * 10**9  # ns; the coarsest clock of file systems in use, FAT's
ARRAYS = {*SPLITS, *(f"labels-{split}" for split in SPLITS)}
CHUNK = 2**22  # pixels that are counted, or bytes that are written, at once


@dataclass(frozen=True, eq=False)
class Data:
    """Images, and what a plan wants to know of them without looking at every pixel.

    Attributes:
        images: the images; memory-mapped where they are kept.
        fingerprint: the hash of images and labels.
        least: the lowest level of the training images.
        most: the highest.
        second_moment: mean square of the training images' pixels in [-1, 1].
        place: the folder they are kept in; None where they are not.
        wanted: where their stamp goes when they are kept, and what is written there, if anything is yet; None where
            they are not to be kept.
        answers: what was found out of data that are not kept yet, by the hash of the question.
    """

    images: Images
    fingerprint: str
    least: int
    most: int
    second_moment: float
    place: Path | None = None
    wanted: tuple[Path, dict[str, Any] | None] | None = None
    answers: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, images: Images) -> Data:
        """Look at images."""
        flat = images.train.reshape(-1)
        counts = np.zeros(256, dtype=np.int64)
        for first in range(0, len(flat), CHUNK):
            counts += np.bincount(flat[first : first + CHUNK], minlength=256)
        values = 2.0 * np.arange(256) / (images.levels - 1) - 1
        there = np.flatnonzero(counts)
        moment = float((counts * values**2).sum() / counts.sum())
        return cls(images, images.fingerprint(), int(there[0]), int(there[-1]), moment)

    @classmethod
    def outlined(cls, outline: Outline) -> Data:
        """Stand in for images that nobody reads: their shapes, of no memory, and the largest label of each split."""
        train, validation, test = (np.broadcast_to(np.uint8(0), (n, *outline.shape)) for n in outline.counts)
        largest = np.int64(outline.classes - 1)
        labels = {split: np.broadcast_to(largest, n) for split, n in zip(SPLITS, outline.counts, strict=True)}
        images = Images(train, validation, test, outline.levels, labels if outline.classes else {})
        return cls(images, outline.fingerprint, outline.least, outline.most, outline.second_moment)

    def remembered(self, question: Any, ask: Callable[[], str | None]) -> str | None:
        """Return the answer to a question about these data, asked once where they are kept; JSON names the question."""
        name = self._named(question)
        if self.place is None:
            if name not in self.answers:
                self.answers[name] = ask()
            return self.answers[name]
        path = _answer(self.place, name)
        known = files.read_sealed(path)
        if known is None or "answer" not in known:
            known = {"answer": ask()}
            with contextlib.suppress(OSError):  # it is asked again
                files.write_sealed(path, known)
        answer: str | None = known["answer"]
        return answer

    def recalled(self, question: Any, ask: Callable[[], str | None]) -> str | None:
        """Return the answer that is kept, or else one that is not worth keeping, as it was given without the pixels."""
        known = files.read_sealed(_answer(self.place, self._named(question))) if self.place is not None else None
        return ask() if known is None or "answer" not in known else known["answer"]

    def _named(self, question: Any) -> str:
        return files.sha256(files.canonical([self.fingerprint, question]).encode())


def find_data(
    store: Store | None, registry: Registry, dataset: Dataset, *, again: bool = False, outlined: bool = False
) -> Data:
    """Return the images of a data set: those that are kept, if its stamp is that of then, else decoded. Writes nothing.

    Args:
        store: Where they are kept; None for nowhere.
        registry: Where the data set comes from.
        dataset: The data set; one without a stamp is loaded and not kept.
        again: Load a plugin's twice, and compare.
        outlined: Take what a data set says of its images for them, where they are not kept: nobody will read them.

    Raises:
        DdpmkitError: when it gives something that is no data set.
    """
    again = again and not registry.is_builtin(dataset)  # of the built-in ones tests hold it
    asked = time.time_ns()
    stamp = contract.stamp(dataset)
    outline = contract.outline(dataset) if outlined else None
    if outline is not None and (store is None or stamp is None):
        return Data.outlined(outline)
    if store is None or stamp is None:
        return Data.of(contract.images(dataset, again=again))
    root = store.root / "data"
    key = files.sha256(files.canonical([registry.record(dataset), stamp]).encode())
    entry = root / "stamps" / f"{key}.json"
    known = files.read_sealed(entry) or {}
    try:
        kept = _opened(root, str(known.get("content")))
    except OSError as err:
        print(f"warning: {_unread(root, err)}; the source is decoded instead", file=sys.stderr)
        return Data.of(contract.images(dataset, again=again))
    if kept is not None:
        notes, classes = (tuple(known.get(key, ())) for key in ("notes", "classes"))
        return replace(kept, images=replace(kept.images, notes=notes, classes=classes))
    if outline is not None:
        return Data.outlined(outline)
    data = Data.of(contract.images(dataset, again=again))
    if contract.stamp(dataset) != stamp:
        return data  # it changed while it was read: the next one reads it again
    said = {"content": data.fingerprint, "notes": list(data.images.notes), "dataset": registry.called(dataset)}
    said |= {"classes": list(data.images.classes)} if data.images.classes else {}
    # What was written just now may be written again within one tick of a coarse clock, and its stamp be the same, as in
    # git's index: such data are kept without their stamp, and who asks later than that writes it.
    return replace(data, wanted=(entry, None if _within(stamp, asked, TICK) else said))


def find_kept(store: Store, content: str) -> Data | None:
    """Return the kept data of a content hash, which was not taken again; None where there are none to be read."""
    try:
        return _opened(store.root / "data", content)
    except OSError:
        return None


def keep(data: Data, *, aloud: bool = True) -> Data:
    """Keep decoded data, and return them as they are kept; those that are, or are not to be, as they are.

    ``aloud`` says it where they can't be kept; one of many workers need not.
    """
    if data.wanted is None:
        return data
    entry, said = data.wanted
    root = entry.parent.parent

    def write() -> None:
        _keep(root / data.fingerprint, data)
        for name, answer in data.answers.items():
            files.write_sealed(_answer(root / data.fingerprint, name), {"answer": answer})
        if said is not None:
            files.write_sealed(entry, said)

    try:
        write()
    except OSError as err:
        if aloud:
            why = f"{err.strerror or err}; each worker decodes them again and holds its own copy"
            print(f"warning: decoded data can't be kept in '{root}': {why}", file=sys.stderr)
    try:
        kept = _opened(root, data.fingerprint)
    except OSError as err:
        print(f"warning: {_unread(root, err)}; the source is decoded instead", file=sys.stderr)
        return data
    if kept is None:
        return data
    return replace(kept, images=replace(kept.images, notes=data.images.notes, classes=data.images.classes))


def _within(stamp: Any, now: int, span: int) -> bool:
    """Whether a stamp holds a time, ns since 1970, so close to now."""
    if isinstance(stamp, (list, tuple)):
        return any(_within(part, now, span) for part in stamp)
    if isinstance(stamp, dict):
        return _within(list(stamp.values()), now, span)
    return isinstance(stamp, int) and abs(now - stamp) < span


def _answer(place: Path, name: str) -> Path:
    return place.parent / "answers" / f"{name}.json"


def set_aside(data: Data) -> None:
    """Move kept data that are not what they are named by out of the way."""
    place = data.place
    if place is not None:
        with contextlib.suppress(OSError):  # they were seen to be damaged, and will be again
            if place.is_dir():
                files.quarantine(place)


def _keep(place: Path, data: Data) -> None:
    # Only what is proven to be damaged is moved: what can't be read here may be whole.
    if place.is_dir() and _opened(place.parent, place.name) is None:
        files.quarantine(place)
    images = data.images
    arrays = {split: getattr(images, split) for split in SPLITS}
    arrays |= {f"labels-{split}": labels for split, labels in images.labels.items()}
    meta = {
        "fingerprint": data.fingerprint,
        "levels": images.levels,
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "least": data.least,
        "most": data.most,
        "second_moment": data.second_moment,
    }
    files.commit_folder(place, {f"{name}.npy": _as_npy(array) for name, array in arrays.items()}, meta)


def _as_npy(array: np.ndarray[Any, Any]) -> Iterator[Chunk]:
    """The bytes of a .npy file, version 1.0, piece by piece: a copy of all pixels may not fit beside them."""
    array, header = np.ascontiguousarray(array), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    yield header.getvalue()
    flat = array.reshape(-1).view(np.uint8)
    for first in range(0, len(flat), CHUNK):
        yield flat[first : first + CHUNK].data


def _opened(root: Path, content: str) -> Data | None:
    """The kept data of a content; None where there are none, or they are not whole.

    Raises:
        OSError: where they are there and can't be read, or not be mapped: that is no damage.
    """
    place = root / content
    try:
        (place / files.COMMIT).open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        return None
    meta = files.verify_folder(place, contents=False)
    if meta is None or meta.get("fingerprint") != content or not ARRAYS.issuperset(meta.get("shapes", ())):
        return None
    try:
        # Copy-on-write: torch wants to be able to write, and nothing that is written reaches the file.
        arrays = {
            name: np.asarray(
                np.load(place / f"{name}.npy", mmap_mode="c" if name in SPLITS else None, allow_pickle=False)
            )
            for name in meta["shapes"]
        }
    except (FileNotFoundError, *DAMAGE):
        return None
    for name, array in arrays.items():
        dtype = np.dtype(np.uint8) if name in SPLITS else np.dtype(np.int64)
        if array.dtype != dtype or list(array.shape) != meta["shapes"][name] or not array.flags.c_contiguous:
            return None
    labels = {name.removeprefix("labels-"): array for name, array in arrays.items() if name not in SPLITS}
    images = Images(arrays["train"], arrays["validation"], arrays["test"], meta["levels"], labels)
    return Data(images, content, meta["least"], meta["most"], meta["second_moment"], place)


def _unread(root: Path, err: OSError) -> str:
    return f"decoded data in '{root}' can't be read: {err.strerror or err}"
