"""Chains on which components are tried: short and long, with signal left at the end or next to none."""

from __future__ import annotations

from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.plugin.registry import Registry
from ddpmkit.plugin.tables import Tables


def chain(schedule: str, T: int) -> Tables:
    """Return the tables of a built-in schedule."""
    return tables_for(Registry(installed=False).build("schedule", schedule), T)


def chains() -> dict[str, Tables]:
    """Return what every sigma and weighting must take: as a study might have it, by a name for errors."""
    asked = (("cosine", 2), ("cosine", 50), ("linear", 1000))
    return {f"{schedule}, T={T}": chain(schedule, T) for schedule, T in asked}
