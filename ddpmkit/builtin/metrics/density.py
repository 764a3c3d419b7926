"""Density, by nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from ddpmkit import Levels, Measurement, Metric, Sets, param


@dataclass(frozen=True)
class Density(Metric):
    """How many nearest-neighbour balls of the reference a sample lies in, over k.

    Its mean over samples is 1 where both distributions are one, and may be larger; less where reference images are
    repeated k times over, whose balls are empty.
    """

    name = "density"
    reference = "Naeem et al. 2020 (arXiv 2002.09797), eq. 3"
    better = "higher"
    k: int = param(5, "neighbours", ge=1, before=5)

    def value(self, sets: Sets) -> Measurement:
        """Return it from the distances that precision, recall, density and coverage share."""
        from ddpmkit import neighbour_metrics

        return sets.once(neighbour_metrics, k=self.k)["density"]

    def why_not(
        self, n: int, n_reference: int, train: Levels | None = None, heldout: Levels | None = None
    ) -> str | None:
        """Say why there is no k-th nearest other point."""
        from ddpmkit import no_neighbours

        return no_neighbours(n, n_reference, self.k)
