"""Mean and covariance of features that arrive in batches: one pass, shifted, mergeable, float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpmkit.errors import DdpmkitError

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Moments:
    """n, the mean (D,) and the scatter sum_i (x_i - mean)(x_i - mean)^T, (D, D).

    Each batch is centred by its own mean and merged as Chan, Golub & LeVeque 1983 (eq. 1.5) do for the variance, so a
    large common offset costs no digits.
    """

    n: int
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, x: Array) -> Moments:
        """The moments of one batch (N, D), N of at least 1.

        Raises:
            DdpmkitError: for another shape, or values that are not finite.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or len(x) == 0:
            raise DdpmkitError(f"a batch of features has shape {x.shape}", "pass (N, D)")
        if not np.isfinite(x).all():
            raise DdpmkitError("a batch holds features that are not finite", "look at those images")
        mean = x.mean(0)
        centred = x - mean
        rest = centred.mean(0)  # the rounding of a mean far from zero
        centred -= rest
        return cls(len(x), mean + rest, centred.T @ centred)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together, as if they had been one.

        Raises:
            DdpmkitError: when the dimensions differ.
        """
        if self.mean.shape != other.mean.shape:
            raise DdpmkitError(
                f"features have {len(self.mean)} and {len(other.mean)} dimensions", "use one extractor for both"
            )
        n = self.n + other.n
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(step, step) * (self.n * other.n / n)
        return Moments(n, self.mean + step * (other.n / n), scatter)

    @property
    def cov(self) -> Array:
        """The covariance, divided by n - 1 as in every published FID.

        Raises:
            DdpmkitError: for fewer than two samples.
        """
        if self.n < 2:
            raise DdpmkitError(f"a covariance needs at least 2 samples, not {self.n}", "take more samples")
        return self.scatter / (self.n - 1)


def moments(batches: Iterable[Array]) -> Moments:
    """Return the moments of all batches (N_i, D) in one pass.

    Raises:
        DdpmkitError: when there is no batch, shapes differ, or a value is not finite.
    """
    total: Moments | None = None
    for batch in batches:
        part = Moments.of(batch)
        total = part if total is None else total.merge(part)
    if total is None:
        raise DdpmkitError("no features to take moments of", "take more samples")
    return total
