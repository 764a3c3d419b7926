"""One number about samples: its value, its error, which way is better, and what each sample adds to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ddpmkit.errors import DdpmkitError

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Metric:
    """A value with its standard error over the samples, the reference held fixed.

    ``influence`` (N,) is the first-order effect of each sample on the value, so that se = sd(influence) / sqrt(N), and
    the error of a difference of two sample sets that share their noise is the sd of the difference of the influences.
    """

    value: float
    better: Literal["lower", "higher", "none"]  # none: a test or a check, which ranks nothing
    influence: Array | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def se(self) -> float | None:
        """The standard error, conditional on the reference; None where none is known."""
        return None if self.influence is None else standard_error(self.influence)

    def record(self) -> dict[str, Any]:
        """The metric as JSON values, without the influences."""
        return {"value": self.value, "se": self.se, "better": self.better, **self.details}


def standard_error(influence: Array) -> float:
    """sd(influence) / sqrt(N), for influences (N,)."""
    return float(influence.std(ddof=1) / np.sqrt(len(influence)))


def paired_difference(a: Metric, b: Metric) -> tuple[float, float]:
    """Return (a - b, its standard error) for sample sets that share noise row by row, and the reference.

    The i-th influences are subtracted before the sd is taken, so what the shared noise does to both drops out.

    Raises:
        DdpmkitError: when a metric has no influences, or the numbers of samples differ.
    """
    if a.influence is None or b.influence is None:
        raise DdpmkitError("a metric without a standard error has no paired one", "compare its values over seeds")
    if a.influence.shape != b.influence.shape:
        raise DdpmkitError(
            f"{len(a.influence)} and {len(b.influence)} samples can't be paired", "draw equally many with one seed"
        )
    return a.value - b.value, standard_error(a.influence - b.influence)
