"""Measurements: what the metrics give, and the difference of two that share their noise."""

from __future__ import annotations

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.measurement import Measurement as Measurement
from ddpmkit.plugin.measurement import standard_error as standard_error


def paired_difference(a: Measurement, b: Measurement) -> tuple[float, float]:
    """Return (a - b, its standard error) for sample sets that share noise row by row, and the reference.

    The i-th influences are subtracted before the sd is taken, so what the shared noise does to both drops out.

    Raises:
        DdpmkitError: when one has no influences, or the numbers of samples differ.
    """
    if a.influence is None or b.influence is None:
        raise DdpmkitError("a metric without a standard error has no paired one", "compare its values over seeds")
    if a.influence.shape != b.influence.shape:
        raise DdpmkitError(
            f"{len(a.influence)} and {len(b.influence)} samples can't be paired", "draw equally many with one seed"
        )
    return a.value - b.value, standard_error(a.influence - b.influence)
