"""How good are the samples? Distances to real images, each with its error, and what to hold them against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpmkit.distances.floors import floor_of_halves, prepare
from ddpmkit.distances.frechet import frechet_distance, frechet_from_moments
from ddpmkit.distances.measurement import Measurement, paired_difference
from ddpmkit.distances.panel import Panel, score
from ddpmkit.distances.reference import Reference, differences, distance_label, prepare_features, statistics

if TYPE_CHECKING:
    METRICS: tuple[str, ...]  # names of the built-in ones, in the order of tables

__all__ = [
    "METRICS",
    "Measurement",
    "Panel",
    "Reference",
    "differences",
    "distance_label",
    "floor_of_halves",
    "frechet_distance",
    "frechet_from_moments",
    "paired_difference",
    "prepare",
    "prepare_features",
    "score",
    "statistics",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # When it is asked for: the built-in metrics themselves import from here.
        if name != "METRICS":
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        from ddpmkit.distances.named import built_in

        return tuple(built_in())
