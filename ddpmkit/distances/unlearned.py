"""How bad is bad: what images score that no network has drawn, beside what real images do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ddpmkit.distances.floors import taken_of
from ddpmkit.distances.reference import Reference
from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.plugin.interfaces import Images, Levels, Metric

if TYPE_CHECKING:
    from torch import Tensor

UNLEARNED = ("pure noise", "mean image", "Gaussian")
MOST = 1000  # images of each; a row to hold others against needs no more
MOST_SEEN = 10_000  # training images whose covariance is taken
CHUNK = 2_000  # of them at once


def unlearned_images(images: Images, n: int) -> dict[str, Levels]:
    """Return name -> n images that need no network, as grey levels (n, C, H, W), the same at every call.

    ``pure noise`` is N(0, 1) clipped to [-1, 1] and rounded to the levels, as the sampler's x_T would be; ``mean
    image`` is that of the training images, n times; ``Gaussian`` is drawn from N(mu, C) with their mean and covariance,
    clipped and rounded too.
    """
    import torch

    from ddpmkit.pixels import quantise, to_pixels
    from ddpmkit.randomness import normal, stream_key

    shape, index = tuple(images.train.shape[1:]), torch.arange(n)
    seen = torch.from_numpy(_spread(images.train, MOST_SEEN))
    mean = torch.stack([to_pixels(part, images.levels).sum(0, dtype=torch.float64) for part in seen.split(CHUNK)])
    mu = (mean.sum(0) / len(seen)).float()
    # sum_i z_i (x_i - mu) / sqrt(N - 1) has the covariance of the x_i, however many dimensions they have.
    gaussian: Tensor = mu.repeat(n, *[1] * len(shape))
    for number, part in enumerate(seen.split(CHUNK)):
        weights = normal(stream_key(0, "unlearned Gaussian"), index, (len(part),), number)
        centred = (to_pixels(part, images.levels) - mu).flatten(1)
        gaussian += (weights @ centred).reshape(n, *shape) / max(len(seen) - 1, 1) ** 0.5
    drawn = normal(stream_key(0, "unlearned noise"), index, shape), mu.repeat(n, *[1] * len(shape)), gaussian
    return {name: quantise(pixels, images.levels).numpy() for name, pixels in zip(UNLEARNED, drawn, strict=True)}


def score_unlearned(
    images: Images, reference: Reference, metrics: Mapping[str, Metric], n: int
) -> dict[str, dict[str, float]]:
    """Return name -> metric -> what :func:`unlearned_images` score, for the metrics that rank and have a floor.

    What an extractor has no features of, as of an image of one grey, is left out: samples will not look like that.

    Raises:
        DdpmkitError: when memory or a file is lacking, which another try may have.
    """
    ranking = {name: metric for name, metric in metrics.items() if metric.better != "none"}  # a test would say 1 of all
    out: dict[str, dict[str, float]] = {}
    for name, levels in unlearned_images(images, n).items():
        try:
            found = taken_of(levels, reference, ranking)
        except DdpmkitError as err:
            if err.code == Exit.FAILED:
                raise
            continue
        out[name] = {metric: one["value"] for metric, one in found.items()}
    return out


def _spread(levels: Levels, most: int) -> Levels:
    """At most so many images, evenly spread over all: files are often sorted."""
    return levels if len(levels) <= most else levels[np.linspace(0, len(levels) - 1, most).astype(np.int64)]
