"""How good are the samples? Distances to real images, each with its error, and what to hold them against."""

from __future__ import annotations

from ddpmkit.distances.frechet import frechet_distance, frechet_from_moments
from ddpmkit.distances.metric import Metric, paired_difference
from ddpmkit.distances.panel import METRICS, Panel, Reference, distance_label, prepare, score

__all__ = [
    "METRICS",
    "Metric",
    "Panel",
    "Reference",
    "distance_label",
    "frechet_distance",
    "frechet_from_moments",
    "paired_difference",
    "prepare",
    "score",
]
