"""From whom a run takes a stage over who is not known to be gone."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ddpmkit.study.claim import SILENT, Claim


@dataclass
class TakeOver:
    """Asked of each claim that a stage is found with, while it is waited for.

    Attributes:
        steal: whether it is taken from anybody.
    """

    steal: bool
    _torn_since: float | None = None

    def __call__(self, claim: Claim) -> bool:
        """Whether to take the stage over from whoever has that claim."""
        return self._nobodys(claim) or self.steal

    def _nobodys(self, claim: Claim) -> bool:
        """Whether a claim has been unreadable for so long that nobody holds it.

        A disk or a power cut has spoilt it, or whoever was making it has ended. A process whose own claim it was has
        seen by now that it is no longer there, and has left the stage.
        """
        now = time.monotonic()
        self._torn_since = None if claim != Claim() else self._torn_since or now
        return self._torn_since is not None and now - self._torn_since > SILENT
