"""Precision, recall, density, coverage: do samples and reference lie in each other's nearest-neighbour balls?"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from ddpmkit.distances.frechet import checked_pair
from ddpmkit.distances.measurement import Measurement
from ddpmkit.errors import DdpmkitError

Array = np.ndarray[Any, np.dtype[np.float64]]
CHUNK = 512
REPEATED = 0.01  # share of points with k exact copies above which it is said


def neighbour_metrics(x: Array, y: Array, *, k: int = 5, inclusive: bool = False) -> dict[str, Measurement]:
    """Return precision, recall, density and coverage of samples (N, D) against a reference (M, D).

    The ball of a point has the distance to its k-th nearest other point of its own set as radius. Precision: the share
    of samples inside a reference ball. Recall: the share of reference points inside a sample ball (Kynkaanniemi et al.
    2019, arXiv 1904.06991, eq. 1, 2). Density: reference balls around a sample, over k. Coverage: the share of
    reference balls with a sample inside (Naeem et al. 2020, arXiv 2002.09797, eq. 3, 4). Inside is ``distance <
    radius``, or ``<=`` when ``inclusive``. Precision and density are means over samples; the error of coverage is the
    jackknife's; recall has none. Distances are sums of squared differences in float64, so a point is at exactly 0
    from its copy. One with k copies has, with ``<``, an empty ball, so that a perfect model is below 1: where more
    than 1 % of the points are such, ``details["note"]`` says so.

    Args:
        x: Features of the samples, (N, D).
        y: Features of the reference, (M, D).
        k: Neighbours, smaller than both N and M.
        inclusive: Whether a point on the surface is inside.

    Raises:
        DdpmkitError: for sets of at most k points, different D, or features that are not finite.
    """
    x, y = checked_pair(x, y)
    n, m = len(x), len(y)
    reason = no_neighbours(n, m, k)
    if reason:
        raise DdpmkitError(reason, "take more samples")
    inside = np.less_equal if inclusive else np.less
    radius_x, radius_y = _radii(x, k), _radii(y, k)
    balls = np.zeros(n)  # reference balls around each sample
    lone = np.zeros(n)  # reference balls in which a sample is the only one
    covered_balls, recalled_points = 0, 0
    for first in range(0, m, CHUNK):
        part = slice(first, first + CHUNK)
        distance = cdist(y[part], x)
        recalled_points += int(inside(distance, radius_x).any(1).sum())
        hit = inside(distance, radius_y[part, None])
        count = hit.sum(1)
        covered_balls += int((count > 0).sum())
        balls += hit.sum(0)
        lone += hit[count == 1].sum(0)
    how: dict[str, Any] = {"k": k, "inequality": "<=" if inclusive else "<"}
    in_any = (balls > 0).astype(np.float64)
    # Jackknife: without sample j, coverage falls by the balls in which j is alone.
    pseudo = (n - 1) * (lone - lone.mean()) / m
    of_x, of_y = (
        how | ({} if inclusive else _repeated(radius, name, k))
        for radius, name in ((radius_x, "samples"), (radius_y, "reference images"))
    )
    return {
        "precision": Measurement(float(in_any.mean()), in_any - in_any.mean(), dict(of_y)),
        "recall": Measurement(recalled_points / m, None, of_x),
        "density": Measurement(float(balls.mean() / k), (balls - balls.mean()) / k, dict(of_y)),
        "coverage": Measurement(covered_balls / m, pseudo, dict(of_y)),
    }


def no_neighbours(n: int, m: int, k: int) -> str | None:
    """Say why N samples and M reference points have no k-th nearest other point; None where they have."""
    return None if 1 <= k < min(n, m) else f"k = {k} nearest neighbours of {n} samples and {m} reference points"


def _repeated(radius: Array, name: str, k: int) -> dict[str, str]:
    """The note of points that have k exact copies; nothing where they are few."""
    share = float((radius == 0).mean())
    if share <= REPEATED:
        return {}
    return {
        "note": f"{100 * share:.0f} % of the {name} have {k} exact copies among them, so that their balls are empty: a "
        "perfect model is below 1, and 0 where all are such"
    }


def _radii(x: Array, k: int) -> Array:
    """The distance from each point to its k-th nearest other point."""
    # Position 0 of a sorted row is the point itself.
    rows = (cdist(x[first : first + CHUNK], x) for first in range(0, len(x), CHUNK))
    return np.concatenate([np.partition(row, k, axis=1)[:, k] for row in rows])
