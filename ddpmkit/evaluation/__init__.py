"""How good are the samples, and how likely are the data? Distances, likelihoods, and what to hold them against."""

from __future__ import annotations

from ddpmkit.evaluation.any_network import bits_per_dim
from ddpmkit.evaluation.frechet import frechet_distance, frechet_from_moments
from ddpmkit.evaluation.metric import Metric, paired_difference
from ddpmkit.evaluation.nll_bound import Bound, bound, paired
from ddpmkit.evaluation.nll_control import LinearGaussian
from ddpmkit.evaluation.nll_draw import draw
from ddpmkit.evaluation.nll_draws import Draws
from ddpmkit.evaluation.panel import METRICS, Panel, Reference, distance_label, prepare, score

__all__ = [
    "METRICS",
    "Bound",
    "Draws",
    "LinearGaussian",
    "Metric",
    "Panel",
    "Reference",
    "bits_per_dim",
    "bound",
    "distance_label",
    "draw",
    "frechet_distance",
    "frechet_from_moments",
    "paired",
    "paired_difference",
    "prepare",
    "score",
]
