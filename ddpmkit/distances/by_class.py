"""Samples class by class: how far each class lies from the real images of its own, and how many are near copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddpmkit.distances.copies import near_copies
from ddpmkit.distances.frechet_error import debiased_frechet, expected_frechet
from ddpmkit.distances.moments import Moments
from ddpmkit.plugin.interfaces import Levels, Sets

Features = np.ndarray[Any, np.dtype[np.float64]]
Labels = np.ndarray[Any, np.dtype[np.int64]]


def by_class(
    sets: Sets,
    labels: Labels,
    real: Labels,
    *,
    fd: bool = True,
    copies: bool = True,
    near: np.ndarray[Any, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each class that a sample is of, as JSON values.

    ``class``, ``n`` samples of it and ``n_reference`` reference images. ``fd``, the Frechet distance of the two, and
    ``fd_se``, given the reference: only where both sides have at least 2 (D + 1) images for D features, for with fewer
    the halves that tell the bias are singular. It is without the bias of the n samples; that of the reference images
    stays in, and is what :func:`perfect_by_class` says. ``near``, the share of the class's samples that lie less than
    half as far from a training image, of any class, as from every held-out one, as in the copy check.

    Args:
        sets: All samples beside the reference.
        labels: Labels of the samples, int64 (N,).
        real: Labels of the reference's images, int64 (M,).
        fd: Whether distances are asked for.
        copies: Whether near copies are.
        near: Which samples are near copies, bool (N,), where a copy check of these sets has said so.
    """
    if not copies:
        near = None
    elif near is None and sets.x_levels is not None and sets.train is not None and sets.heldout is not None:
        near = near_copies(sets.x_levels, sets.train, sets.heldout)
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


def perfect_by_class(y: Features, labels: Labels) -> list[dict[str, Any]]:
    """Return a row for each class of the reference that has a distance: what a perfect model's ``fd`` is on average.

    ``class``, ``n`` images of it and ``fd``, the bias that they cause: ``expected_frechet`` of exact samples. Shapes
    (M, D) and (M,).
    """
    out = []
    for label in np.unique(labels).tolist():
        theirs = y[labels == label]
        if len(theirs) >= least(y.shape[1]):
            out.append({"class": label, "n": len(theirs), "fd": expected_frechet(Moments.of(theirs).cov, len(theirs))})
    return out


def heldout_by_class(train: Levels, heldout: Levels, labels: Labels) -> list[dict[str, Any]]:
    """Return a row for each class of the held-out images: what the ``near`` of samples is to be held against.

    ``class``, ``n`` images of it and ``near``, the share that are near copies of a training image by chance, or because
    the data hold such pairs. Shapes (A, C, H, W), (B, C, H, W) and (B,).
    """
    near = near_copies(heldout, train, heldout, itself=True)
    return [
        {"class": c, "n": int((labels == c).sum()), "near": float(near[labels == c].mean())}
        for c in np.unique(labels).tolist()
    ]
