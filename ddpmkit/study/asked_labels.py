"""Which labels a trained network is told when somebody asks it for samples, or for the bound of their own images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import torch

from ddpmkit.diffusion.labels import LabelOf, SampleLabels
from ddpmkit.errors import DdpmkitError
from ddpmkit.study.stages.sample import Sample

if TYPE_CHECKING:
    from ddpmkit.study.trained import Trained


def told_of_samples(
    walk: Sample, trained: Trained, labels: str | int | Sequence[int] | None, usual: SampleLabels
) -> tuple[Sample, LabelOf | None]:
    """Return what is asked with its labels, and the label of each image by its index; None where none is told.

    Args:
        walk: What is asked.
        trained: The network.
        labels: ``data`` or ``balanced``, one class for all, classes that are taken in turn, or None.
        usual: What None stands for.

    Raises:
        DdpmkitError: for labels that the network or the guidance does not go with, or that are none.
    """
    if labels is not None:
        need_labels(trained, "labels")
        if walk.guidance == -1:
            raise DdpmkitError("at guidance -1 the network is told no labels", "leave out one of the two")
    if trained.classes is None or walk.guidance == -1:
        return replace(walk, labels=None), None
    if labels is None or isinstance(labels, str):
        which = usual if labels is None else labels
        if which not in get_args(SampleLabels):
            raise DdpmkitError(f"labels can't be '{which}'", "data, balanced, or classes such as 0,3")
        walk = replace(walk, labels=cast(SampleLabels, which))
        return walk, walk.label_of(trained)
    wanted = torch.as_tensor([labels] if isinstance(labels, int) else list(labels), dtype=torch.int64)
    _within(wanted, trained)
    return walk, lambda index: wanted.to(index.device)[index % len(wanted)]


def told_of_images(trained: Trained, labels: Any, count: int) -> torch.Tensor | None:
    """Return the labels of images, int64 (N,) on the device; None for a network that was trained without.

    Raises:
        DdpmkitError: when they are missing, or are of another number of images, or the network knows none.
    """
    if labels is None and trained.classes is None:
        return None
    if labels is None:
        raise DdpmkitError("this network was trained with labels", "give those of the images: bits_per_dim(x, y)")
    need_labels(trained, "labels")
    y = torch.as_tensor(np.asarray(labels), dtype=torch.int64).to(trained.device)
    if y.shape != (count,):
        raise DdpmkitError(f"labels of shape {tuple(y.shape)} for {count} images", "one label an image")
    return _within(y, trained)


def _within(y: torch.Tensor, trained: Trained) -> torch.Tensor:
    classes = trained.classes or 0
    if not len(y) or int(y.min()) < 0 or int(y.max()) >= classes:
        odd = sorted({int(v) for v in y if not 0 <= v < classes})
        raise DdpmkitError(f"there is no class {odd[0] if odd else 'given'}", f"classes are 0 to {classes - 1}")
    return y


def need_labels(trained: Trained, what: str) -> None:
    """Refuse what only a network with labels can do.

    Raises:
        DdpmkitError: for one that was trained without.
    """
    if trained.classes is None:
        raise DdpmkitError(
            f"{what} are of networks that were trained with labels; this one was trained without",
            "ddpmkit ablate --conditional trains one",
        )
