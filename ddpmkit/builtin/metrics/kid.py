"""The kernel distance, KID."""

from dataclasses import dataclass

from ddpmkit import Measurement, Metric, Sets


@dataclass(frozen=True)
class Kid(Metric):
    """KID over all pairs, of features standardised by the reference; unbiased, and so sometimes negative.

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j), k(a, b) = (a.b / D + 1)^3.
    """

    name = "kid"
    version = 2  # a feature that is constant but for rounding is constant
    reference = "Binkowski et al. 2018 (arXiv 1801.01401), sec. 4; Gretton et al. 2012, eq. 3"
    title = "KID"
    unit = "squared distance"

    def value(self, sets: Sets) -> Measurement:
        """Return the complete U-statistic with its first-order standard error."""
        from ddpmkit import kernel_distance

        return sets.once(kernel_distance)
