"""How good are the samples, and how likely are the data? Distances, likelihoods, and what to hold them against."""

from __future__ import annotations

from ddpmkit.evaluation.frechet import frechet_distance, frechet_from_moments
from ddpmkit.evaluation.metric import Metric, paired_difference
from ddpmkit.evaluation.panel import METRICS, Panel, Reference, distance_label, prepare, score

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
