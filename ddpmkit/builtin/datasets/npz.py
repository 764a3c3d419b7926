"""Any uint8 images in one .npz file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DAMAGE, DdpmkitError
from ddpmkit.plugin.interfaces import Dataset, Images
from ddpmkit.plugin.spec import param

if TYPE_CHECKING:
    import numpy as np

LIMIT = 8 * 2**30  # bytes; what a file declares is checked before anything is read


@dataclass(frozen=True)
class Npz(Dataset):
    """Images from a .npz file with train_images and test_images: uint8, (N, H, W) or (N, H, W, C), H = W.

    The last ``validation`` training images are set aside. Labels are read from train_labels and test_labels if there.
    """

    name = "npz"
    reference = "numpy.savez(path, train_images=..., test_images=...)"
    path: str = param("", "the .npz file", locates=True)
    levels: int = param(256, "number of grey levels; the largest pixel value is levels - 1", ge=2, le=256)
    validation: int = param(1000, "training images set aside as validation", ge=1)

    def load(self) -> Images:
        """Return the images, uint8 (N, C, H, W).

        Raises:
            DdpmkitError: when the file is missing, damaged, or holds something else; the array is named.
        """
        import numpy as np

        if not self.path:
            raise DdpmkitError("npz needs a file", "write --dataset npz:path=images.npz")
        try:
            with zipfile.ZipFile(self.path) as archive:
                if sum(info.file_size for info in archive.infolist()) > LIMIT:
                    raise DdpmkitError(f"{self.path} unpacks to more than {LIMIT >> 30} GiB", "split the file")
            with np.load(self.path, allow_pickle=False) as arrays:
                held = {key: arrays[key] for key in arrays.files if key.endswith(("_images", "_labels"))}
        except FileNotFoundError:
            raise DdpmkitError(f"there is no file '{self.path}'", "write --dataset npz:path=images.npz") from None
        except (OSError, *DAMAGE) as err:
            raise DdpmkitError(
                f"'{self.path}' is no readable .npz file: {' '.join(str(err).split())}",
                "write it again with numpy.savez",
            ) from None
        train, test = self._images(held, "train_images"), self._images(held, "test_images")
        if train.shape[1:] != test.shape[1:]:
            raise DdpmkitError(
                f"{self.path}: train_images are {train.shape[1:]} and test_images {test.shape[1:]} (C, H, W)",
                "both must have one shape",
            )
        if len(train) <= self.validation or len(test) < 2:
            raise DdpmkitError(
                f"{self.path}: {len(train)} training images, {self.validation} for validation, {len(test)} test",
                "set npz:...:validation= to less, or add images",
            )
        cut = len(train) - self.validation
        labels: dict[str, Any] = {}
        if self._fits(held, "train_labels", len(train)) and self._fits(held, "test_labels", len(test)):
            classes = held["train_labels"].astype(np.int64)
            labels = {"train": classes[:cut], "validation": classes[cut:], "test": held["test_labels"].astype(np.int64)}
        return Images(train[:cut], train[cut:], test, self.levels, labels)

    def _images(self, held: dict[str, Any], key: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        import numpy as np

        if key not in held:
            raise DdpmkitError(
                f"{self.path} has no array '{key}'", "numpy.savez(path, train_images=..., test_images=...)"
            )
        array = held[key]
        if array.dtype != np.uint8:
            raise DdpmkitError(f"{self.path}: {key} has dtype {array.dtype}, not uint8", "store grey levels as uint8")
        if array.ndim == 3:
            array = array[:, :, :, None]
        if array.ndim != 4 or array.shape[1] != array.shape[2] or array.shape[3] not in (1, 3) or len(array) == 0:
            raise DdpmkitError(
                f"{self.path}: {key} has shape {held[key].shape}", "it must be (N, H, H) or (N, H, H, 1 or 3)"
            )
        if int(array.max()) >= self.levels:
            raise DdpmkitError(
                f"{self.path}: {key} holds the value {array.max()}, and levels={self.levels} allows up to "
                f"{self.levels - 1}",
                "set npz:...:levels=256",
            )
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))

    @staticmethod
    def _fits(held: dict[str, Any], key: str, count: int) -> bool:
        return key in held and held[key].shape == (count,) and held[key].dtype.kind in "iu"
