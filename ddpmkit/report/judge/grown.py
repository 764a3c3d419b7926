"""Studies to which train seeds were added: that it matters, and what a reader must know of their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ddpmkit.statistics import Contrast, G, half_width
from ddpmkit.study.growth import Growth


def in_seeds(growths: Iterable[Growth]) -> bool:
    """Whether train seeds were added, perhaps after a look, or nothing is known of what was added.

    More cells or metrics of the same seeds are another matter: they make the family larger, which Holm counts.
    """
    return any(not g.when or g.seeds_before != g.seeds_after for g in growths)


def grown_notes(
    differences: Mapping[str, Mapping[str, Contrast]], stopped: Mapping[str, Sequence[int]] | None = None
) -> list[str]:
    """Return the notes on anytime-valid verdicts.

    Args:
        differences: Metric -> cell -> contrast with the baseline.
        stopped: The train seeds of cells that got no more once they were settled.
    """
    found = {m: [c.anytime for c in cells.values() if c.anytime and c.anytime.e] for m, cells in differences.items()}
    needed = {m: all_[0].needed for m, all_ in found.items() if all_}
    if not needed:
        return []
    notes = [
        f"Train seeds were added to this study, perhaps after a look: verdicts are by e-value (anytime-valid t test, "
        f"g = {G:g}), better or worse from m / alpha on for the m contrasts of one metric; intervals of differences "
        "are its confidence sequences. They hold at every number of seeds. Holm's p holds for a number that was fixed "
        "beforehand, and decides nothing here; nor was the number fixed for the intervals of the cells."
    ]
    if stopped:
        by = ", ".join(f"{cell} {len(seeds)}" for cell, seeds in stopped.items())
        notes.append(f"Train seeds of cells that got no more once their verdict was settled: {by}.")
    early = [m for m, n in needed.items() if max(c.n for c in differences[m].values()) < fewest(n)]
    if early:
        most = max(fewest(needed[m]) for m in early)
        notes.append(f"{', '.join(early)}: no verdict can fall below {most} train seeds, however large the gap.")
    return notes


def fewest(needed: float) -> int:
    """Return the fewest seeds at which any e-value can reach what settles a verdict."""
    n = 2
    while half_width(n, 1 / needed) == float("inf"):
        n += 1
    return n
