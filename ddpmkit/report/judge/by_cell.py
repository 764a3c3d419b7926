"""What is to be said of each cell, in one sentence: cells of which the same is said are named together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddpmkit.text.naming import in_common

FEW = 6  # cells, or groups of them, that are named one by one


def named(cells: Sequence[str], among: int) -> str:
    """Name some cells, of so many: one by one, or by the words that all of them have in common, and counted."""
    if len(cells) == among > 1:
        return f"all {among} cells"
    if len(cells) < 3:
        return ", ".join(cells)
    common = in_common(cells)
    return f"{cells[0]} and {len(cells) - 1} more" if ", " in common else f"{common} ({len(cells)} cells)"


def by_cell(texts: Mapping[str, str]) -> str:
    """Return ``cell text, cell text``; one text of all cells once; of many, those of one text together, or two ends.

    Args:
        texts: Cell -> what is said of it. Where the cells are many it begins with a number, and the ends are the least
            and the largest.
    """
    if len(texts) <= FEW and (len(texts) < 3 or len(set(texts.values())) > 1):
        return ", ".join(f"{cell} {text}" for cell, text in texts.items())
    groups: dict[str, list[str]] = {}
    for cell, text in texts.items():
        groups.setdefault(text, []).append(cell)
    if len(groups) <= FEW:
        return ", ".join(f"{named(cells, len(texts))} {text}" for text, cells in groups.items())
    ends = sorted(groups, key=lambda text: float(text.split()[0].replace(",", "")))
    least, most = ends[0], ends[-1]
    return f"of {len(texts)} cells {least} ({groups[least][0]}) to {most} ({groups[most][0]})"
