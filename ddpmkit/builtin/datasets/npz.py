"""Any uint8 images in one .npz file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ddpmkit import DAMAGE, MOST_READ, Dataset, DdpmkitError, Images, file_stamp, param, unread, what_is_at

if TYPE_CHECKING:
    import numpy as np

CHANNELS = (1, 2, 3, 4)
MOST_LABEL = 2**31 - 1


@dataclass(frozen=True)
class Npz(Dataset):
    """Images from a .npz file with train_images and test_images: uint8, (N, H, W), (N, H, W, C) or (N, C, H, W).

    C is 1 to 4; which axis it is, is seen from that, or from equal sides, and said; images that could be read either
    way, as (N, 3, 3, 3), need ``layout``. The last ``validation`` training images are set aside. Labels are read from
    train_labels and test_labels, whole numbers (N,) from 0, if both are there.
    """

    name = "npz"
    reference = "numpy.savez(path, train_images=..., test_images=...)"
    path: str = param("", "the .npz file", locates=True)
    levels: int = param(256, "number of grey levels; the largest pixel value is levels - 1", ge=2, le=256)
    validation: int = param(1000, "training images set aside as validation", ge=1)
    layout: Literal["auto", "nchw", "nhwc"] = param("auto", "order of the axes of arrays with four")

    def load(self) -> Images:
        """Return the images, uint8 (N, C, H, W).

        Raises:
            DdpmkitError: when the file is missing, damaged, or holds something else; the array is named.
        """
        import numpy as np

        from ddpmkit.builtin.datasets._classes import class_notes

        if not self.path:
            raise DdpmkitError("npz needs a file", "write --dataset npz:path=images.npz")
        if what_is_at(self.path) not in (None, "file"):
            # A pipe can be read once, and every worker reads the data.
            raise DdpmkitError(
                f"'{self.path}' is no readable .npz file: it is no file", "write --dataset npz:path=images.npz"
            )
        try:
            with zipfile.ZipFile(self.path) as archive:
                if sum(info.file_size for info in archive.infolist()) > MOST_READ:
                    raise DdpmkitError(f"{self.path} unpacks to more than {MOST_READ >> 30} GiB", "split the file")
            with np.load(self.path, allow_pickle=False) as arrays:
                held = {key: arrays[key] for key in arrays.files if key.endswith(("_images", "_labels"))}
        except FileNotFoundError:
            raise DdpmkitError(f"there is no file '{self.path}'", "write --dataset npz:path=images.npz") from None
        except PermissionError as err:
            raise unread(self.path, err) from None
        except (OSError, *DAMAGE) as err:
            raise DdpmkitError(
                f"'{self.path}' is no readable .npz file: {' '.join(str(err).split())}",
                "write it again with numpy.savez",
            ) from None
        (train, said), (test, said_of_test) = (self._images(held, f"{split}_images") for split in ("train", "test"))
        if train.shape[1:] != test.shape[1:]:
            raise DdpmkitError(
                f"{self.path}: train_images has shape {held['train_images'].shape} and test_images has shape "
                f"{held['test_images'].shape}: (C, H, W) is {train.shape[1:]} and test_images {test.shape[1:]}",
                "both must have one shape",
            )
        if len(train) <= self.validation or len(test) < 2:
            raise DdpmkitError(
                f"{self.path}: {len(train)} training images, {self.validation} for validation, {len(test)} test",
                "set npz:...:validation= to less, or add images",
            )
        order = {"train_images": said, "test_images": said_of_test}
        # Where it is the same for both, as it should be, once.
        told = {said: key for key, said in reversed(order.items()) if held[key].ndim == 4}
        notes = [f"{key} {held[key].shape} were read as {said}" for said, key in told.items()]
        cut = len(train) - self.validation
        labels: dict[str, Any] = {}
        here = [key for key in ("train_labels", "test_labels") if key in held]
        if len(here) == 2:
            seen, other = self._labels(held, "train_labels", len(train)), self._labels(held, "test_labels", len(test))
            labels = {"train": seen[:cut], "validation": seen[cut:], "test": other}
        elif here:
            notes.append(f"{here[0]} were left out, since the other split has none")
        notes += class_notes(labels)
        images = Images(train[:cut], train[cut:], test, self.levels, labels)
        return replace(images, notes=tuple(f"{Path(self.path).name}: {note}" for note in notes))

    def stamp(self) -> Any:
        """Return what changes with the file, without reading it; None for what is no file, which load refuses."""
        return file_stamp([self.path]) if what_is_at(self.path) == "file" else None

    def _images(self, held: dict[str, Any], key: str) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], str]:
        """The images as (N, C, H, W), and in which order of their axes they were read."""
        import numpy as np

        from ddpmkit import channels_first

        if key not in held:
            raise DdpmkitError(
                f"{self.path} has no array '{key}'", "numpy.savez(path, train_images=..., test_images=...)"
            )
        array = held[key]
        if array.dtype != np.uint8:
            raise DdpmkitError(f"{self.path}: {key} has dtype {array.dtype}, not uint8", "store grey levels as uint8")
        images, said = channels_first(
            array,
            f"{self.path}: {key}",
            channels=CHANNELS,
            hint="say which: npz:path=...:layout=nchw or layout=nhwc",
            layout=self.layout,
            square=True,
        )
        if int(images.max()) >= self.levels:
            raise DdpmkitError(
                f"{self.path}: {key} holds the value {images.max()}, and levels={self.levels} allows up to "
                f"{self.levels - 1}",
                "set npz:...:levels=256",
            )
        return images, said

    def _labels(self, held: dict[str, Any], key: str, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The labels as int64 (N,)."""
        import numpy as np

        array = held[key]
        hint = f"store whole numbers from 0, one an image, or leave {key} out"
        if array.shape != (count,):
            raise DdpmkitError(f"{self.path}: {key} has shape {array.shape} for {count} images", hint)
        if array.dtype.kind not in "iu":
            raise DdpmkitError(f"{self.path}: {key} has dtype {array.dtype}", hint)
        if int(array.min()) < 0 or int(array.max()) > MOST_LABEL:
            raise DdpmkitError(f"{self.path}: {key} holds {array.min()} .. {array.max()}", hint)
        return np.asarray(array, dtype=np.int64)
