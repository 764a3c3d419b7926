"""How good are the samples, and how likely are the data? Distances, likelihoods, and what to hold them against."""

from __future__ import annotations

from ddpmkit.evaluation.frechet import frechet_distance, frechet_from_moments

__all__ = ["frechet_distance", "frechet_from_moments"]
