"""Recall, by nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from ddpmkit import Levels, Measurement, Metric, Sets, param


@dataclass(frozen=True)
class Recall(Metric):
    """The share of reference images inside a nearest-neighbour ball of the samples.

    The ball of a sample reaches to its k-th nearest other one; inside is distance < radius.
    """

    name = "recall"
    reference = "Kynkaanniemi et al. 2019 (arXiv 1904.06991), eq. 2"
    better = "higher"
    k: int = param(5, "neighbours", ge=1, before=5)

    def value(self, sets: Sets) -> Measurement:
        """Return it from the distances that precision, recall, density and coverage share."""
        from ddpmkit import neighbour_metrics

        return sets.once(neighbour_metrics, k=self.k)["recall"]

    def why_not(
        self, n: int, n_reference: int, train: Levels | None = None, heldout: Levels | None = None
    ) -> str | None:
        """Say why there is no k-th nearest other point."""
        from ddpmkit import no_neighbours

        return no_neighbours(n, n_reference, self.k)
