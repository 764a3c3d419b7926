"""The copy check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddpmkit import DdpmkitError, Levels, Measurement, Metric, Sets


@dataclass(frozen=True)
class Copy(Metric):
    """How much closer samples lie to training images than held-out images do: 1 is clean, 0 all copies.

    r(A) = mean_A d(a, train) / mean_A d(a, held-out) over pixels; the value is r(samples) / r(held-out).
    """

    name = "copy"
    reference = "a ratio of nearest distances; compare Meehan et al. 2020 (arXiv 2004.05675)"
    better = "none"
    needs = ("training",)
    has_floor = False  # 1 on held-out data by definition

    def value(self, sets: Sets) -> Measurement:
        """Return the ratio; ``flag`` in the details says that copies are likely."""
        from ddpmkit import copy_check

        if sets.x_levels is None or sets.train is None or sets.heldout is None:
            raise DdpmkitError("a copy check needs images", "pass samples, training and held-out images")
        x, train, heldout = (levels.reshape(len(levels), -1) for levels in (sets.x_levels, sets.train, sets.heldout))
        return copy_check(x, train, heldout)

    def why_not(
        self, n: int, n_reference: int, train: Levels | None = None, heldout: Levels | None = None
    ) -> str | None:
        """Say why there are too few, or why the held-out images tell nothing."""
        from ddpmkit import no_copy_check

        return None if train is None or heldout is None else no_copy_check(n, train, heldout)

    def remark(self, details: Mapping[str, Any]) -> str:
        """Return whether there are copies, and how many samples lie how near."""
        warning = "COPIES of training images; " if details["flag"] else ""
        return f"{warning}near copies {details['near']:.1%}, held-out {details['near_heldout']:.1%}"
