"""The copy check: do samples sit closer to the training images than new images of the same kind do?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ddpmkit.distances.measurement import Measurement
from ddpmkit.errors import DdpmkitError

Array = np.ndarray[Any, np.dtype[np.float64]]
Levels = np.ndarray[Any, np.dtype[np.uint8]]
Rows = Array | Levels
CHUNK, NEAR, ALARM, LEAST = 1024, 0.5, 1e-3, 3
ALL_COPIES = "the held-out images are all copies"


def copy_check(x: Rows, train: Rows, heldout: Rows) -> Measurement:
    """The nearest-train-distance ratio of samples (N, D), divided by that of held-out data; 1 is clean, 0 all copies.

    r(A) = mean_A d(a, train) / mean_A d(a, held-out), the value is r(samples) / r(held-out), a held-out point being no
    neighbour of itself. Blurred samples are close to both sets, so they do not raise a false alarm, as the plain
    distance to the training set does (compare Meehan et al. 2020, arXiv 2004.05675). A near copy lies less than half
    as far from a training point as from every held-out one; ``details`` has its share among samples (``near``) and
    among held-out data (``near_heldout``), the p-value of Fisher's exact test that the first is not larger, and
    ``flag``: p < 0.001. ``rows`` says which samples are near copies, ``near``. The error holds both sets fixed.

    Args:
        x: Pixels of the samples, (N, D); grey levels or finite floats.
        train: Those of the training images, (A, D), and of their mirror images where the network was shown these.
        heldout: Those of images that were not trained on, (B, D), B of at least 3.

    Raises:
        DdpmkitError: for fewer than three rows in a set.
    """
    from scipy.stats import fisher_exact  # half a second of import that few need

    reason = too_few(len(x), len(train), len(heldout))
    if reason:
        raise DdpmkitError(reason, "take more samples")
    to_train, to_heldout = nearest(x, train), nearest(x, heldout)
    base_train, base_heldout = nearest(heldout, train), nearest(heldout, heldout, itself=True)
    if not to_heldout.any():
        raise DdpmkitError(
            "the samples are the held-out images themselves, and say nothing of copies",
            "leave out copy: --metrics fd,kid",
        )
    if not (base_train.any() and base_heldout.any()):
        raise DdpmkitError(ALL_COPIES, "hold out images that are not in the training set")
    base = float(base_train.mean() / base_heldout.mean())
    ratio = float(to_train.mean() / to_heldout.mean())
    # The delta method for a ratio of means.
    effect = (to_train - ratio * to_heldout) / (to_heldout.mean() * base)
    near, near_base = to_train < NEAR * to_heldout, base_train < NEAR * base_heldout
    table = [[int(near.sum()), int((~near).sum())], [int(near_base.sum()), int((~near_base).sum())]]
    p = float(fisher_exact(table, alternative="greater").pvalue)
    details = {
        "near": float(near.mean()),
        "near_heldout": float(near_base.mean()),
        "exact": float((to_train == 0).mean()),
        "p": p,
        "flag": p < ALARM,
        "n_train": len(train),
        "n_heldout": len(heldout),
    }
    return Measurement(ratio / base, effect, details, rows={"near": near})


def shown_mirrored(train: Levels) -> Levels:
    """Return training images (A, C, H, W) and behind them their mirror images, (2 A, C, H, W).

    Of a training with flips both were shown, and a sample may be a copy of either.
    """
    return np.concatenate([train, train[..., ::-1]])


def near_copies(x: Levels, train: Levels, heldout: Levels, *, itself: bool = False) -> np.ndarray[Any, Any]:
    """Return which images (N, C, H, W) are near copies of a training image, as :func:`copy_check` counts them, (N,).

    ``itself`` says that x are the held-out images, and one is no neighbour of itself.
    """
    rows, points, others = (levels.reshape(len(levels), -1) for levels in (x, train, heldout))
    return np.asarray(nearest(rows, points) < NEAR * nearest(rows, others, itself=itself))


def too_few(n: int, n_train: int, n_heldout: int) -> str | None:
    """Say why so many samples, training and held-out images make no copy check; None where they do."""
    if min(n, n_train, n_heldout) >= LEAST:
        return None
    sets = f"{n} samples, {n_train} training and {n_heldout} held-out images"
    return f"a copy check of {sets} needs at least {LEAST} of each"


def no_copy_check(n: int, train: Levels, heldout: Levels) -> str | None:
    """Say why a copy check of N samples with these images, uint8 (A, ...) and (B, ...), can't be; None where it can."""
    return too_few(n, len(train), len(heldout)) or no_yardstick(train, heldout)


def no_yardstick(train: Levels, heldout: Levels) -> str | None:
    """Say why held-out images can't tell what is close to the training images; None where they can.

    They can't when each of them is a training image, or each is there twice: every distance is then 0. Rows are
    compared as bytes, which for grey levels is the same as a distance of 0, and takes no distances.

    Args:
        train: Grey levels of the training images, uint8 (A, ...).
        heldout: Those of the held-out images, uint8 (B, ...).
    """
    rows = [row.tobytes() for row in heldout]
    train_rows = {row.tobytes() for row in train}
    if all(row in train_rows for row in rows):
        return f"{ALL_COPIES} of training images"
    counts = Counter(rows)
    return f"{ALL_COPIES} of each other" if min(counts.values()) > 1 else None


def nearest(x: Rows, points: Rows, *, itself: bool = False) -> Array:
    """The Euclidean distance from each row of x (N, D) to the nearest of the points (M, D), float64 of shape (N,).

    |a|^2 + |b|^2 - 2 a.b, exact for grey levels, which are small integers.

    Args:
        x: Rows, (N, D).
        points: Where to look, (M, D).
        itself: The points are x itself, and a row is no neighbour of itself.
    """
    best = np.full(len(x), np.inf)
    for start in range(0, len(points), CHUNK):
        part = np.asarray(points[start : start + CHUNK], dtype=np.float64)
        square = np.square(part).sum(1)
        for first in range(0, len(x), CHUNK):
            rows = np.asarray(x[first : first + CHUNK], dtype=np.float64)
            sizes = square + np.square(rows).sum(1)[:, None]
            distance = sizes - 2 * (rows @ part.T)
            distance[distance < 1e-12 * sizes] = 0  # what rounding leaves of a copy, where the values are no integers
            if itself and start == first:
                np.fill_diagonal(distance, np.inf)
            best[first : first + CHUNK] = np.minimum(best[first : first + CHUNK], distance.min(1))
    return np.asarray(np.sqrt(np.maximum(best, 0)))
