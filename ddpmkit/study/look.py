"""What a look at a growing study found: which verdicts are open, and which more seeds may settle."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """What is settled of one metric.

    Attributes:
        metric: its name.
        baseline: the cell that the others are held against.
        open: cells whose verdict is open, and that more seeds may settle.
        stuck: cells that no seed settles, as one with a failed seed.
        fewest: the seeds below which no verdict can fall, however large the gap.
    """

    metric: str
    baseline: str
    open: tuple[str, ...]
    stuck: tuple[str, ...]
    fewest: int
