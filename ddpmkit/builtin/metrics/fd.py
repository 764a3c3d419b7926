"""The Frechet distance, and beside it the same without its 1/N bias."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddpmkit import Measurement, Metric, Sets


@dataclass(frozen=True)
class Fd(Metric):
    """The squared Frechet distance of Gaussians fitted to features: FID, where they are those of the 2015 Inception.

    |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), as the field computes it, and beside it the same without its 1/N
    bias.
    """

    name = "fd"
    reference = "Heusel et al. 2017 (arXiv 1706.08500), eq. 6; bias: Chong & Forsyth 2020 (arXiv 1911.07023)"
    used_by = "nearly everyone"
    title = "FD"
    unit = "squared distance"
    needs = ("statistics",)

    def value(self, sets: Sets) -> Measurement:
        """Return the plain distance, and ``debiased`` beside it where there are samples enough."""
        from ddpmkit import debiased_frechet

        measurement = debiased_frechet(sets.x, sets.mu, sets.cov, n_reference=sets.n_reference, reference=sets.y)
        # Plain, as the field computes it; intervals around it do not cover, since its bias is no noise.
        beside = {"debiased": measurement} if measurement.details["debiased"] else {}
        return Measurement(measurement.details["plain"], None, measurement.details, beside)

    def column(self, protocol: Mapping[str, Any]) -> str:
        """Return FID for the verified Inception file alone, else FD and the extractor's name."""
        return str(protocol["label"])

    def remark(self, details: Mapping[str, Any]) -> str:
        """Return what a perfect model would get, whose samples are finite too."""
        return f"a perfect model would get {details['expected']:.3g}"
