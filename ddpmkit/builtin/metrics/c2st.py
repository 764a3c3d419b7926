"""The classifier two-sample test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ddpmkit import Levels, Measurement, Metric, Sets


@dataclass(frozen=True)
class C2st(Metric):
    """The AUC of a classifier that tells samples from reference images, cross-fitted; 0.5 is the ideal.

    It looks at pixels, and at features where an image has more than 1024 of them. It saturates: it says whether samples
    can be told apart at all, and does not rank.
    """

    name = "c2st"
    reference = "Lopez-Paz & Oquab 2017 (arXiv 1610.06545), sec. 3"
    unit = "AUC"
    better = "none"
    pixels_first = True
    most_pixels = 1024  # of an image; trees on more take minutes

    def value(self, sets: Sets) -> Measurement:
        """Return the mean AUC over five folds, and the p-value of AUC = 1/2."""
        from ddpmkit import two_sample_test

        if sets.x_levels is None or sets.y_levels is None or sets.x_levels[0].size > self.most_pixels:
            measurement, space = sets.once(two_sample_test), "features"
        else:
            x, y = (levels.reshape(len(levels), -1) for levels in (sets.x_levels, sets.y_levels))
            measurement, space = two_sample_test(x, y), "pixels"
        return replace(measurement, details=measurement.details | {"space": space})

    def why_not(
        self, n: int, n_reference: int, train: Levels | None = None, heldout: Levels | None = None
    ) -> str | None:
        """Say why there are too few for five folds."""
        from ddpmkit import no_two_sample_test

        return no_two_sample_test(n, n_reference)

    def remark(self, details: Mapping[str, Any]) -> str:
        """Return what was looked at, and the p-value."""
        return f"AUC in {details['space']}, p = {details['p']:.2g}"
