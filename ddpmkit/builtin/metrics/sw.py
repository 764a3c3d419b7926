"""The sliced Wasserstein distance, SW."""

from dataclasses import dataclass

from ddpmkit import Measurement, Metric, Sets


@dataclass(frozen=True)
class Sw(Metric):
    """The squared Wasserstein distance along fixed directions, on average.

    mean_theta integral_0^1 (F_x^-1(u) - F_y^-1(u))^2 du over 256 unit vectors theta that never change.
    """

    name = "sw"
    reference = "Rabin et al. 2012; Bonneel et al. 2015, sec. 2"
    title = "SW"
    unit = "squared distance"

    def value(self, sets: Sets) -> Measurement:
        """Return the mean over directions; the influence of a sample is the Kantorovich potential at it."""
        from ddpmkit import sliced_wasserstein

        return sets.once(sliced_wasserstein)
