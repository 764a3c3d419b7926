"""Holm's step-down adjustment for a family of tests (Holm 1979, Scandinavian Journal of Statistics 6:65-70)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values: sort, multiply by m - i, running maximum, at most 1 (Holm 1979)."""
    m = len(ps)
    adjusted, running = [0.0] * m, 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: ps[i])):
        running = max(running, min(1.0, (m - rank) * ps[index]))
        adjusted[index] = running
    return adjusted


def holm_levels(ps: Mapping[K, float], alpha: float) -> dict[K, float]:
    """Return, for each test, the level at which Holm decided about it.

    The i-th smallest p is held against alpha / (m - i) until one fails; the level of that one decides all the rest. The
    interval at this level excludes zero exactly when Holm rejects.
    """
    levels: dict[K, float] = {}
    final_level = None
    for rank, name in enumerate(sorted(ps, key=lambda n: ps[n])):
        level = alpha / (len(ps) - rank) if final_level is None else final_level
        levels[name] = level
        if final_level is None and ps[name] > level:
            final_level = level
    return levels
