"""What a metric is shown and what it gives: samples beside what they are held against, and a value with its error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ddpmkit.plugin.tables import Array

if TYPE_CHECKING:
    import numpy as np

# Text, as Array is: an annotation loads no numpy.
Levels: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Measurement:
    """A value with its standard error over the samples, the reference held fixed.

    Attributes:
        value: the number.
        influence: (N,), the first-order effect of each sample on the value, so that se = sd(influence) / sqrt(N), and
            the error of a difference of two sample sets that share their noise is the sd of the difference of the
            influences; None where no error is known.
        details: what else a record should hold, JSON values; a ``note`` is said to whoever reads the table.
        beside: further numbers of the same computation; ``debiased`` beside ``fd`` stands under ``fd-debiased``.
        rows: what the computation knows of each sample, (N,), for others that would take it again; never recorded.
    """

    value: float
    influence: Array | None = None
    details: dict[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Measurement] = field(default_factory=dict)
    rows: Mapping[str, Any] = field(default_factory=dict)

    @property
    def se(self) -> float | None:
        """The standard error, conditional on the reference; None where none is known.

        Nor is one known where no sample moves the value, as at a share of 0 or 1: an error of 0 would claim certainty.
        """
        return standard_error(self.influence) if self.influence is not None and self.influence.any() else None


def standard_error(influence: Array) -> float:
    """sd(influence) / sqrt(N), for influences (N,)."""
    import numpy as np

    return float(influence.std(ddof=1) / np.sqrt(len(influence)))


@dataclass(frozen=True, eq=False)
class Sets:
    """Drawn images and what they are held against, as every metric of one table is shown them; no array can be written.

    Attributes:
        x: features of the samples, (N, D).
        mu: mean of the reference's features, (D,).
        cov: their covariance, (D, D).
        n_reference: images behind the reference; 0 where stored statistics do not say.
        y: features of the reference's images, (M, D); None where it is statistics alone.
        x_levels: the samples as grey levels, (N, C, H, W); None where only features are at hand.
        y_levels: the reference's images, (M, C, H, W).
        train: the training images, (A, C, H, W), that samples may be copies of; with flips, their mirror images too.
        heldout: images that were not trained on, (B, C, H, W).
        levels: the number K of grey levels.
    """

    x: Array
    mu: Array
    cov: Array
    n_reference: int
    y: Array | None = None
    x_levels: Levels | None = None
    y_levels: Levels | None = None
    train: Levels | None = None
    heldout: Levels | None = None
    levels: int | None = None
    _known: dict[Any, Any] = field(default_factory=dict, repr=False)

    def once(self, function: Callable[..., R], **options: Any) -> R:
        """Return ``function(x, y, **options)``, computed once for all metrics of the table that ask for it."""
        key = (function, *sorted(options.items()))
        if key not in self._known:
            self._known[key] = function(self.x, self.y, **options)
        found: R = self._known[key]
        return found
