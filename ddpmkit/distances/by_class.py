"""Samples class by class: how far each class lies from the real images of its own, and how many are near copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddpmkit.distances.copies import NEAR, nearest
from ddpmkit.distances.frechet_error import debiased_frechet
from ddpmkit.distances.moments import Moments
from ddpmkit.plugin.interfaces import Sets

Labels = np.ndarray[Any, np.dtype[np.int64]]


def by_class(sets: Sets, labels: Labels, real: Labels, *, fd: bool = True, copies: bool = True) -> list[dict[str, Any]]:
    """Return a row for each class that a sample is of, as JSON values.

    ``class``, ``n`` samples of it and ``n_reference`` reference images. ``fd``, the Frechet distance of the two without
    its 1/N bias, and ``fd_se``, given the reference: only where both sides have at least 2 (D + 1) images for D
    features, for with fewer the halves that tell the bias are singular. ``near``, the share of the class's samples that
    lie less than half as far from a training image, of any class, as from every held-out one, as in the copy check.

    Args:
        sets: All samples beside the reference.
        labels: Labels of the samples, int64 (N,).
        real: Labels of the reference's images, int64 (M,).
        fd: Whether distances are asked for.
        copies: Whether near copies are.
    """
    near = _near(sets) if copies else None
    out: list[dict[str, Any]] = []
    for label in np.unique(labels).tolist():
        mine, theirs = labels == label, real == label
        row = {"class": label, "n": int(mine.sum()), "n_reference": int(theirs.sum())}
        if fd and sets.y is not None and min(row["n"], row["n_reference"]) >= least(sets.x.shape[1]):
            own = Moments.of(sets.y[theirs])
            found = debiased_frechet(
                sets.x[mine], own.mean, own.cov, n_reference=row["n_reference"], reference=sets.y[theirs]
            )
            row |= {"fd": found.value, "fd_se": found.se}
        if near is not None:
            row["near"] = float(near[mine].mean())
        out.append(row)
    return out


def least(dims: int) -> int:
    """Return the images of a class that both sides need for a distance in so many features: 2 (D + 1)."""
    return 2 * (dims + 1)


def _near(sets: Sets) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Which samples are near copies of a training image, (N,); None where there are no images to compare with."""
    if sets.x_levels is None or sets.train is None or sets.heldout is None:
        return None
    x, train, heldout = (levels.reshape(len(levels), -1) for levels in (sets.x_levels, sets.train, sets.heldout))
    return np.asarray(nearest(x, train) < NEAR * nearest(x, heldout))
