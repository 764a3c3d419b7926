"""Images in the format of MNIST's files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import DAMAGE, MOST_READ, Dataset, DdpmkitError, Images, file_stamp, param, unread, what_is_at

if TYPE_CHECKING:
    import numpy as np

NAMES = {"train": ("train-images", "train-labels"), "test": ("t10k-images", "t10k-labels")}
HINT = "a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"


@dataclass(frozen=True)
class Idx(Dataset):
    """Grey images and labels in the four files of MNIST, Fashion-MNIST, KMNIST and their like, gzipped or not.

    train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte in one folder,
    each perhaps with .gz behind it, or a dot before ``idx``. The last ``validation`` training images are set aside.
    """

    name = "idx"
    reference = "LeCun, Cortes & Burges 1998, the MNIST database: the idx format"
    path: str = param("", "the folder with the four files", locates=True)
    validation: int = param(1000, "training images set aside as validation", ge=1)

    def load(self) -> Images:
        """Return the images, uint8 (N, 1, H, W), and their labels.

        Raises:
            DdpmkitError: when a file is missing, damaged, or declares something else than it holds; it is named.
        """
        from ddpmkit.builtin.datasets._classes import class_notes

        held = {split: tuple(_read(file, dims) for file, dims in self._files(split)) for split in NAMES}
        for split, (images, labels) in held.items():
            if len(images) != len(labels):
                named, other = (file for file, _ in self._files(split))
                raise DdpmkitError(
                    f"'{named}' holds {len(images)} images and '{other.name}' {len(labels)} labels", "fetch both again"
                )
        (train, labels), (test, test_labels) = held["train"], held["test"]
        if train.shape[1:] != test.shape[1:]:
            sizes = " and ".join(f"{w} x {h}" for _, h, w in (train.shape, test.shape))
            raise DdpmkitError(f"'{self.path}': training and test images are {sizes}", "both must have one size")
        cut = len(train) - self.validation
        if cut < 1:
            raise DdpmkitError(
                f"'{self.path}': {self.validation} of {len(train)} training images for validation",
                "set idx:...:validation= to less",
            )
        splits = {"train": labels[:cut], "validation": labels[cut:], "test": test_labels}
        plain = {split: array.astype("int64") for split, array in splits.items()}
        notes = tuple(f"{Path(self.path).name}: {note}" for note in class_notes(plain))
        return Images(train[:cut, None], train[cut:, None], test[:, None], 256, plain, notes)

    def stamp(self) -> Any:
        """Return what changes with the files, without reading them."""
        return file_stamp([file for split in NAMES for file, _ in self._files(split)])

    def _files(self, split: str) -> list[tuple[Path, int]]:
        """The two files of a split, each with the number of its dimensions."""
        if not self.path:
            raise DdpmkitError("idx needs a folder", f"write --dataset idx:path=..., {HINT}")
        folder = Path(self.path)
        if (seen := what_is_at(folder)) != "folder":
            what = "is no folder" if seen else "is not there"
            raise DdpmkitError(f"'{self.path}' {what}", f"give path= {HINT}")
        found = []
        for stem, dims in zip(NAMES[split], (3, 1), strict=True):
            names = [f"{stem}{dot}idx{dims}-ubyte{end}" for end in ("", ".gz") for dot in ("-", ".")]
            here = [folder / name for name in names if what_is_at(folder / name) == "file"]
            if not here:
                raise DdpmkitError(f"'{self.path}' holds no {names[0]}, gzipped or not", f"give path= {HINT}")
            found.append((here[0], dims))
        return found


def _read(file: Path, dims: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One file: two zero bytes, 8 for uint8, the number of dimensions, each as 4 bytes big-endian, then the values."""
    import gzip

    import numpy as np

    head = 4 + 4 * dims
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            start = stream.read(head)
            if len(start) < head or start[:4] != bytes((0, 0, 8, dims)):
                raise DdpmkitError(
                    f"'{file}' does not begin as an idx file of {dims} dimension{'s' * (dims > 1)} of bytes does",
                    "fetch it again, or name it by what it is",
                )
            shape = tuple(int.from_bytes(start[k : k + 4], "big") for k in range(4, head, 4))
            count = math.prod(shape)
            declared = f"'{file}' declares {' x '.join(map(str, shape))} bytes"
            if count == 0:
                raise DdpmkitError(f"'{file}' declares no {'pixels' if dims == 3 else 'labels'}", "fetch it again")
            if count > MOST_READ:
                raise DdpmkitError(f"{declared}, and no more than {MOST_READ} are read", "fetch it again, or use fewer")
            if file.suffix != ".gz" and file.stat().st_size != head + count:
                raise DdpmkitError(f"{declared} and holds {file.stat().st_size - head}", "fetch it again")
            data = stream.read(count + 1)
    except PermissionError as err:
        raise unread(file, err) from None
    except (OSError, *DAMAGE) as err:
        raise DdpmkitError(f"'{file}' can't be read: {' '.join(str(err).split())}", "fetch it again") from None
    if len(data) != count:
        raise DdpmkitError(f"{declared} and holds {'more' if len(data) > count else len(data)}", "fetch it again")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
