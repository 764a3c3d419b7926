"""The margins that a report was made with, as its report.json states them."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

from ddpmkit import files


def stated_margins(folder: Path, known: Collection[str]) -> dict[str, float] | None:
    """Return metric -> the gap that does not matter, of the metrics that are known; None where a report states none."""
    report = files.read_json(folder / "report.json")
    stated = report.get("margins") if isinstance(report, dict) else None
    if not isinstance(stated, dict):
        return None
    usable = {m: float(gap) for m, gap in stated.items() if m in known and isinstance(gap, int | float)}
    return {m: gap for m, gap in usable.items() if 0 < gap < math.inf} or None
