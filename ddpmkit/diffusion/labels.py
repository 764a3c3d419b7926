"""Class labels: how many there are, which images are shown without theirs, and which class a sample is of.

Labels are int64 from 0; of K classes, the label K says that there is none, as Ho & Salimans 2022 write an empty set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.classes import classes_of as classes_of
from ddpmkit.errors import check_choice
from ddpmkit.randomness import Key, stream_key, uniform

SampleLabels = Literal["data", "balanced"]
LabelOf = Callable[[Tensor], Tensor]  # indices of samples, int64 (B,) -> their labels, int64 (B,)


@dataclass(frozen=True, eq=False)
class Shown:
    """The labels of training images, on the device, of which a share is dropped each time that they are shown.

    Attributes:
        y: the label of each image, int64 (N,).
        none: K, the label that says that there is none.
        dropout: the share of images that are shown without their label.
        key: of the stream that drops them.
    """

    y: Tensor
    none: int
    dropout: float
    key: Key

    @classmethod
    def of(cls, y: Tensor, classes: int, dropout: float, seed: int) -> Shown:
        """Key the dropping by the train seed."""
        return cls(y, classes, dropout, stream_key(seed, "label"))

    def at(self, index: Tensor, number: Tensor) -> Tensor:
        """Return what the network is told of images ``index``, (B,); dropped by each one's ``number`` since the start.

        p_uncond of Ho & Salimans 2022, Algorithm 1. It depends on seed and number alone: on no batch, and on no resume.
        """
        return torch.where(uniform(self.key, number) < self.dropout, self.none, self.y[index])


def labels_of_samples(which: SampleLabels, labels: np.ndarray[Any, Any], classes: int, seed: int | str) -> LabelOf:
    """Return the label of sample i as a function of i: it depends on the seed and on i, on no count and no batch.

    Args:
        which: ``data`` draws a class by its share of the training images, by inverse CDF of a keyed uniform number;
            ``balanced`` takes the classes that occur in turn, sample i the (i mod their number)-th, whatever the seed.
        labels: Labels of the training images, (N,).
        classes: Their number K.
        seed: Of the samples.

    Raises:
        DdpmkitError: for another way.
    """
    check_choice("sample_labels", which, get_args(SampleLabels))
    counts = np.bincount(labels, minlength=classes)
    if which == "balanced":
        occurring = torch.from_numpy(np.flatnonzero(counts))
        return lambda index: occurring.to(index.device)[index % len(occurring)]
    cdf = torch.from_numpy(np.cumsum(counts) / counts.sum())
    key = stream_key(seed, "sample-label")

    def drawn(index: Tensor) -> Tensor:
        # On the CPU, in float64: a class must not depend on the device. u < 1, so a class that does not occur, whose
        # step of the CDF is flat, is never met.
        u = uniform(key, index.cpu())
        return torch.searchsorted(cdf, u, right=True).clamp(max=classes - 1).to(index.device)

    return drawn
