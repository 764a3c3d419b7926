"""What is odd about the splits of a data set: images in two of them, labels out of step, levels that are not K's."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ddpmkit.plugin.interfaces import SPLITS, Images
from ddpmkit.plugin.measurement import Levels

OWN, SHARED = 0.02, 0.05  # shares of images that are there twice: within a split by chance, and across two by mistake
MOST = 400  # images whose nearest neighbours are looked for
LEAST = 30  # images of a split of which something can be said
READ, NOT_READ = 0.3, 3.0  # how far above chance labels are read, and how many standard errors are chance
ONE_CLASS = 0.7  # share of a class above which a split has too little of the others
BRIGHTER = 3.0  # deviations of the mean grey of images, by which that of two splits differs


def overlap(images: Images) -> str:
    """Say which images stand in two splits; nothing where images are so few kinds that they must."""
    rows = {split: _keys(getattr(images, split)) for split in SPLITS}
    known = {split: set(keys) for split, keys in rows.items()}
    for one, other in itertools.combinations(SPLITS, 2):
        if any(1 - len(known[split]) / len(rows[split]) > OWN for split in (one, other)):
            continue
        shared = len(known[one] & known[other])
        if shared > SHARED * len(known[other]):
            return f"{shared} of the {len(rows[other])} images of {other} are in {one} too"
    return ""


def odd_levels(images: Images) -> str:
    """Say what shows that the grey levels are not 0 .. K-1, or not in every split."""
    brightest = max(int(getattr(images, split).max()) for split in SPLITS)
    for split in SPLITS:
        if len(getattr(images, split)) > 1 and not getattr(images, split).any():
            return f"every image of {split} is black: all levels are 0"
    if brightest * 15 < images.levels:
        return f"no level is above {brightest}, and K = {images.levels}"
    grey = {split: getattr(images, split).mean(axis=(1, 2, 3)) for split in SPLITS}
    for split in ("validation", "test"):
        if min(len(grey[split]), len(grey["train"])) < LEAST:
            continue
        gap, width = abs(grey[split].mean() - grey["train"].mean()), max(grey["train"].std(), grey[split].std())
        if gap > BRIGHTER * width and gap > 0.1 * images.levels:
            return f"the mean level is {grey['train'].mean():.3g} in train and {grey[split].mean():.3g} in {split}"
    return ""


def odd_axes(images: Images) -> str:
    """Say what shows that the channels stand last."""
    channels, height, width = images.train.shape[1:]
    if width in (1, 3, 4) and channels == height > width:  # of square images; signals and latents may be as narrow
        return f"its images are {(channels, height, width)}, which looks like (H, W, C)"
    return ""


def odd_labels(images: Images) -> Iterator[str]:
    """Yield what is odd about labels: classes, and whether the nearest image of another split has the same one."""
    if not images.labels:
        return
    most = max(int(labels.max()) for labels in images.labels.values())
    least = min(int(labels.min()) for labels in images.labels.values())
    if least == 1 and not images.classes:
        yield f"its labels are 1 to {most}, and classes count from 0"
    yield from _out_of_step(images)


def odd_classes(images: Images) -> str:
    """Say what is wrong with the names of the classes: one for each label, all of them texts."""
    if not images.classes:
        return ""
    if not all(isinstance(name, str) and name.strip() for name in images.classes):
        return f"the names of its classes are {images.classes[:3]}.., not all of them texts"
    most = max((int(labels.max()) for labels in images.labels.values()), default=-1)
    if most >= len(images.classes):
        return f"its labels go up to {most}, and {len(images.classes)} classes have names"
    return ""


def _out_of_step(images: Images) -> Iterator[str]:
    """Yield splits whose labels can't be read from the images, where those of another split can."""
    some = {split: _some(images, split) for split in SPLITS if len(getattr(images, split)) >= LEAST}
    some = {split: known for split, known in some.items() if np.bincount(known[1]).max() < ONE_CLASS * len(known[1])}
    read = {split: found for split, known in some.items() if (found := _read(*known, *known, own=True))}
    legible = {split for split, (above, _) in read.items() if above > READ}
    for split, (above, error) in read.items():
        if legible and above < min(NOT_READ * error, READ / 3):
            yield f"the labels of {split} have nothing to do with its images; those of {min(legible)} do"
    if {"train", "test"} <= legible and (found := _read(*some["train"], *some["test"], own=False)):
        above, error = found
        if above < min(NOT_READ * error, READ / 3):
            yield "the labels of test are not those of train: an image's nearest one in train has another class"


def _some(images: Images, split: str) -> tuple[Any, Any]:
    """Images that are spread over a split, no two the same, as rows; and their labels."""
    array = getattr(images, split)
    index = np.unique(np.linspace(0, len(array) - 1, MOST).round().astype(int))
    rows = array[index].reshape(len(index), -1).astype(np.float32)
    rows, first = np.unique(rows, axis=0, return_index=True)
    return rows, images.labels[split][index][first]


def _read(x: Any, x_labels: Any, y: Any, y_labels: Any, *, own: bool) -> tuple[float, float] | None:
    """How much oftener than by chance the nearest of x has the label of a y, and the standard error of that.

    Asked of those y alone whose label some other x has too; None where they are few.
    """
    count = max(int(x_labels.max()), int(y_labels.max())) + 1
    there = np.bincount(x_labels, minlength=count)[y_labels] > own
    if there.sum() < LEAST:
        return None
    distance = (y**2).sum(1)[:, None] - 2 * y @ x.T + (x**2).sum(1)
    if own:
        np.fill_diagonal(distance, np.inf)
    hits = float((x_labels[distance.argmin(1)] == y_labels)[there].mean())
    shares = [np.bincount(v, minlength=count) / len(v) for v in (x_labels, y_labels[there])]
    chance = float(shares[0] @ shares[1])
    return hits - chance, max(chance * (1 - chance), 1e-9) ** 0.5 / float(there.sum()) ** 0.5


def _keys(levels: Levels) -> list[bytes]:
    """A hash of each image: the images themselves may be a memory-mapped file of gigabytes."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in levels]
