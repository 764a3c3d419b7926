"""What a data set must load."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.contract.answers import refuse, shown
from ddpmkit.plugin.interfaces import SPLITS, Images, Outline

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Dataset


def images(dataset: Dataset, *, again: bool = False) -> Images:
    """Return a data set's images, in C order: uint8 (N, C, H, W), below K levels, no split empty.

    Args:
        dataset: The component.
        again: Load them a second time, and compare.

    Raises:
        DdpmkitError: when it gives something else, or other images the second time.
    """
    import numpy as np

    told = f"dataset '{dataset.name}'"
    found = _images(dataset, told)
    if again:
        other = _images(dataset, told)
        same = found.levels == other.levels and found.labels.keys() == other.labels.keys()
        for split in SPLITS:
            same = same and np.array_equal(getattr(found, split), getattr(other, split))
            same = same and np.array_equal(found.labels.get(split, 0), other.labels.get(split, 0))
        if not same:
            refuse(dataset, f"{told} gives other images when it is loaded again", "draw the split from a fixed seed")
    return found


def stamp(dataset: Dataset) -> Any:
    """Return what a data set says to be another where its images are; None where it says nothing.

    Raises:
        DdpmkitError: when it is no JSON.
    """
    with blame("dataset", dataset.name):
        found = dataset.stamp()
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        refuse(dataset, f"dataset '{dataset.name}': its stamp is {shown(found)}, and no JSON", "give numbers and texts")
    return found


def outline(dataset: Dataset) -> Outline | None:
    """Return what a data set says of its images without reading them; None where it says nothing.

    Raises:
        DdpmkitError: when it is no outline.
    """
    with blame("dataset", dataset.name):
        found = dataset.outline()
    if found is not None and not isinstance(found, Outline):
        refuse(dataset, f"dataset '{dataset.name}': outline gives a {type(found).__name__} and no Outline")
    return found


def _images(dataset: Dataset, told: str) -> Images:
    import numpy as np

    with blame("dataset", dataset.name):
        found = dataset.load()
    if not isinstance(found, Images):
        refuse(
            dataset,
            f"{told}: load gives a {type(found).__name__} and no Images",
            "return Images(train, validation, test, levels=K), each uint8 (N, C, H, W)",
        )
    levels = found.levels
    if not isinstance(levels, (int, np.integer)) or isinstance(levels, bool) or not 2 <= levels <= 256:
        refuse(dataset, f"{told}: its number of grey levels is {shown(levels)}, and uint8 holds 2 to 256")
    splits: dict[str, Any] = {}
    for split in SPLITS:
        array = getattr(found, split)
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 4:
            shape = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            refuse(
                dataset,
                f"{told}: its {split} split is {shape}, not an array of uint8 (N, C, H, W)",
                "levels.astype(np.uint8) makes levels uint8, and ddpmkit.channels_first puts axes in that order",
            )
        least = 2 if split == "test" else 1
        if len(array) < least:
            count = "is empty" if not len(array) else f"has {len(array)} image"
            refuse(dataset, f"{told}: its {split} split {count}, and it needs at least {least}", USE[split])
        if array[0].size == 0:
            refuse(dataset, f"{told}: its images are {array.shape[1:]} (C, H, W), which is nothing")
        if array.shape[1:] != found.train.shape[1:]:
            refuse(
                dataset,
                f"{told}: its {split} images are {array.shape[1:]} (C, H, W), those of train {found.train.shape[1:]}",
            )
        if int(array.max()) >= levels:
            refuse(dataset, f"{told}: its {split} split holds the level {array.max()}, and K = {levels}")
        splits[split] = np.ascontiguousarray(array)
    return dataclasses.replace(found, **splits, levels=int(levels), labels=_labels(dataset, told, found.labels, splits))


USE = {
    "train": "give it images to learn from",
    "validation": "set images aside: the likelihood's draws are planned on them",
    "test": "give it images to compare with",
}


def _labels(dataset: Dataset, told: str, labels: Any, splits: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np

    if not isinstance(labels, dict) or not (labels.keys() == set(SPLITS) or not labels):
        refuse(
            dataset,
            f"{told}: its labels are no dict of {', '.join(SPLITS)}, and not empty either",
            "one int64 array (N,) for each split, or {} where there are no labels",
        )
    for split, array in labels.items():
        count = len(splits[split])
        if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.shape != (count,):
            shape = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            refuse(
                dataset,
                f"{told}: the labels of its {split} split are {shape}, not int64 ({count},)",
                "the class of each image as a whole number, y.astype(np.int64)",
            )
        if (array < 0).any():
            refuse(dataset, f"{told}: the labels of its {split} split go down to {array.min()}; classes count from 0")
    return {split: np.ascontiguousarray(array) for split, array in labels.items()}
