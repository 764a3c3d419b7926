"""How good are the samples, and how likely are the data? Distances, likelihoods, and what to hold them against."""

from __future__ import annotations

from ddpmkit.evaluation.any_network import bits_per_dim
from ddpmkit.evaluation.frechet import frechet_distance, frechet_from_moments
from ddpmkit.evaluation.nll_bound import Bound, bound, paired
from ddpmkit.evaluation.nll_control import LinearGaussian
from ddpmkit.evaluation.nll_draw import draw
from ddpmkit.evaluation.nll_draws import Draws

__all__ = [
    "Bound",
    "Draws",
    "LinearGaussian",
    "bits_per_dim",
    "bound",
    "draw",
    "frechet_distance",
    "frechet_from_moments",
    "paired",
]
