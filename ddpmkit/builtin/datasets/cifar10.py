"""CIFAR-10 from its published binary archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import DAMAGE, Dataset, DdpmkitError, Images, file_stamp, names_in, param, unread, what_is_at

if TYPE_CHECKING:
    import numpy as np

RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, the green and the blue plane
RECORDS = 10_000  # in each file
CLASSES = 10
UNPACKED = 2**28  # bytes that the archive may unpack to; its six files have 184 million
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")  # batches.meta.txt
Sized = tuple[int, bytes]  # the size of a file, and its bytes if that is the one it must have
TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
TEST = "test_batch.bin"
WHERE = "cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, or its folder"


@dataclass(frozen=True)
class Cifar10(Dataset):
    """CIFAR-10: 60,000 colour photographs of 32x32 in ten classes, from cifar-10-binary.tar.gz or its unpacked folder.

    The training images are data_batch_1 .. 5.bin in that order, of which the last ``validation`` ones are set aside;
    the test images are test_batch.bin. A record is 3073 bytes: the class, then the red, green and blue plane.
    """

    name = "cifar10"
    reference = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images; the binary version"
    path: str = param("", "cifar-10-binary.tar.gz, or the folder it unpacks to", locates=True)
    validation: int = param(1000, "training images set aside as validation", ge=1)

    def load(self) -> Images:
        """Return the images, uint8 (N, 3, 32, 32), and their classes.

        Raises:
            DdpmkitError: when the archive is missing, damaged, the pickled one, or not what was published.
        """
        import numpy as np

        from ddpmkit.builtin.datasets._classes import class_notes

        place = self._place()
        found = dict(_of_folder(place) if place.is_dir() else _of_archive(place))
        parts = [self._records(name, found) for name in (*TRAIN, TEST)]
        pixels, labels = np.concatenate([p for p, _ in parts[:-1]]), np.concatenate([n for _, n in parts[:-1]])
        test, test_labels = parts[-1]
        cut = len(pixels) - self.validation
        if cut < 1:
            raise DdpmkitError(
                f"cifar10: {self.validation} of {len(pixels)} training images for validation", "set validation= to less"
            )
        labels_of = {"train": labels[:cut], "validation": labels[cut:], "test": test_labels}
        notes = tuple(f"cifar10: {note}" for note in class_notes(labels_of))
        return Images(pixels[:cut], pixels[cut:], test, 256, labels_of, notes, NAMES)

    def stamp(self) -> Any:
        """Return what changes with the files, without reading them; None where one is missing, which load refuses."""
        place = self._place()
        files = [place / name for name in (*TRAIN, TEST)] if place.is_dir() else [place]
        return file_stamp(files) if all(what_is_at(file) == "file" for file in files) else None

    def _place(self) -> Path:
        """The archive, or the folder that holds the six files."""
        if not self.path:
            raise DdpmkitError("cifar10 needs the archive", f"write --dataset cifar10:path=..., {WHERE}")
        place = Path(self.path)
        if (here := what_is_at(place)) is None:
            raise DdpmkitError(f"there is no file or folder '{self.path}'", f"give path= the {WHERE}")
        if here == "folder":
            for below in (place / "cifar-10-batches-bin", place / "cifar-10-batches-py"):
                if what_is_at(below) == "folder":
                    place = below
                    break
            _refuse_pickles(self.path, names_in(place))
        elif here != "file":  # a pipe can be read once, and every worker reads the data
            raise DdpmkitError(f"'{self.path}' is neither a file nor a folder", f"give path= the {WHERE}")
        return place

    def _records(self, name: str, found: dict[str, Sized]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The images and labels of one file."""
        import numpy as np

        if name not in found:
            raise DdpmkitError(f"'{self.path}' holds no {name}", f"give path= the {WHERE}")
        size, data = found[name]
        if len(data) != RECORD * RECORDS:
            raise DdpmkitError(
                f"{name} in '{self.path}' has {size} bytes, not {RECORDS} records of {RECORD}",
                f"fetch it again: {WHERE}",
            )
        records = np.frombuffer(data, dtype=np.uint8).reshape(RECORDS, RECORD)
        labels = records[:, 0].astype(np.int64)
        if int(labels.max()) >= CLASSES:
            raise DdpmkitError(
                f"{name} in '{self.path}' holds the label {labels.max()}, and classes are 0 to {CLASSES - 1}",
                f"fetch it again: {WHERE}",
            )
        return records[:, 1:].reshape(RECORDS, 3, 32, 32), labels


def _refuse_pickles(path: str, names: list[str]) -> None:
    """Refuse the version for Python: it is read by running what it says."""
    wanted = {name.removesuffix(".bin") for name in (*TRAIN, TEST)}
    if wanted & set(names):
        raise DdpmkitError(
            f"'{path}' is the pickled CIFAR-10: reading a pickle runs whatever code stands in it",
            f"use the binary version: {WHERE}",
        )


def _of_folder(place: Path) -> Iterator[tuple[str, Sized]]:
    for file in (place / name for name in (*TRAIN, TEST)):
        if what_is_at(file) == "file":
            try:
                size = file.stat().st_size
                yield file.name, (size, file.read_bytes() if size == RECORD * RECORDS else b"")
            except OSError as err:
                raise unread(file, err) from None


def _of_archive(place: Path) -> Iterator[tuple[str, Sized]]:
    """The six files of the archive, read as a stream: nothing is unpacked to disk, and sizes are looked at first."""
    import gzip
    import tarfile

    from ddpmkit.builtin.datasets._tar import Counted, Header

    try:
        # gzip's own reader, to its end: tarfile's leaves out the checksum, and counts nothing.
        with gzip.open(place) as stream:
            counted: Any = Counted(stream, UNPACKED)  # a stream that reads is all that tarfile asks for
            with tarfile.open(fileobj=counted, mode="r|", tarinfo=Header) as archive:
                for member in archive:
                    name = Path(member.name).name
                    _refuse_pickles(str(place), [name])
                    if name in (*TRAIN, TEST) and member.isreg():
                        file = archive.extractfile(member) if member.size == RECORD * RECORDS else None
                        yield name, (member.size, file.read() if file is not None else b"")
            while counted.read(2**20):
                continue
    except PermissionError as err:
        raise unread(place, err) from None
    except (OSError, tarfile.TarError, *DAMAGE) as err:
        raise DdpmkitError(
            f"'{place}' is no readable archive: {' '.join(str(err).split())}", f"fetch it again: {WHERE}"
        ) from None
