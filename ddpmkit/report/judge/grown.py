"""Studies to which train seeds were added: that it matters, and what a reader must know of their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ddpmkit.report.judge.some import some
from ddpmkit.statistics import ALPHA, Contrast, G, half_width
from ddpmkit.study.growth import Growth

NAMED = 4  # cells of a metric


def in_seeds(growths: Iterable[Growth]) -> bool:
    """Whether train seeds were added, perhaps after a look, or nothing is known of what was added.

    More cells or metrics of the same seeds are another matter: they make the family larger, which Holm counts.
    """
    return any(not g.when or g.seeds_before != g.seeds_after for g in growths)


def grown_notes(
    differences: Mapping[str, Mapping[str, Contrast]],
    stopped: Mapping[str, Sequence[int]] | None = None,
    alpha: float = ALPHA,
) -> list[str]:
    """Return the notes on anytime-valid verdicts.

    Args:
        differences: Metric -> cell -> contrast with the baseline.
        stopped: The train seeds of cells that got no more once they were settled.
        alpha: Family-wise error rate.
    """
    found = {m: [c.anytime for c in cells.values() if c.anytime and c.anytime.e] for m, cells in differences.items()}
    needed = {m: all_[0].needed for m, all_ in found.items() if all_}
    if not needed:
        return []
    notes = _open_now(differences, alpha)
    notes += [
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
        most, have = max(fewest(needed[m]) for m in early), max(c.n for m in early for c in differences[m].values())
        notes.insert(
            0,
            f"{', '.join(early)}: no verdict can fall below {most} train seeds, however large the gap, and there are "
            f"{have}: since seeds were added to this study, e-values decide and not the t test of a fixed number.",
        )
    return notes


def _open_now(differences: Mapping[str, Mapping[str, Contrast]], alpha: float) -> list[str]:
    """Say which verdicts are open for no other reason than that the study grew."""

    def lost(c: Contrast) -> bool:
        return c.verdict == "inconclusive" and c.p_holm is not None and c.p_holm <= alpha

    each = {m: [cell for cell, c in cells.items() if lost(c)] for m, cells in differences.items()}
    told = "; ".join(f"{m} {some(cells, NAMED)}" for m, cells in each.items() if cells)
    return (
        [f"Inconclusive because train seeds were added, where the t test of a fixed number would find a gap: {told}."]
        if told
        else []
    )


def fewest(needed: float) -> int:
    """Return the fewest seeds at which any e-value can reach what settles a verdict."""
    n = 2
    while half_width(n, 1 / needed) == float("inf"):
        n += 1
    return n
