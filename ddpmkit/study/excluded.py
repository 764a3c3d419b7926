"""Which cells of a grid are impossible, in a few lines however many they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpmkit.study.plan import Plan

FEW = 12  # lines about what was excluded


def excluded_lines(plan: Plan) -> list[str]:
    """Say which cells are impossible and why: each of a few, of many the number and the first for each reason."""
    return [f"excluded: {text}" for text in grouped(plan.excluded)]


def grouped(excluded: Sequence[tuple[str, str]]) -> list[str]:
    """Say each of a few pairs of label and reason, of many the number and the first for each reason."""
    if len(excluded) <= FEW:
        return [f"{label}: {reason}" for label, reason in excluded]
    by_reason: dict[str, list[str]] = {}
    for label, reason in excluded:
        by_reason.setdefault(reason, []).append(label)
    said = [
        labels[0] + (f" and {len(labels) - 1} more cells" if len(labels) > 1 else "") + f": {reason}"
        for reason, labels in by_reason.items()
    ]
    left = sum(len(labels) for labels in list(by_reason.values())[FEW:])
    return [*said[:FEW], f"{left} more cells, for other reasons"] if left else said
