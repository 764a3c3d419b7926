"""From whom a run takes a stage over who is not known to be gone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ddpmkit.study.claim import SILENT, Claim, holder
from ddpmkit.study.stage import Stage
from ddpmkit.study.store import Store


@dataclass
class TakeOver:
    """Asked of each claim that a stage is found with, while it is waited for.

    Attributes:
        steal: marks of claims that the user gives away, ``--steal``.
        run: what the process works for. A process of the same run that is not seen to live is one that the engine has
            started again elsewhere: the newer one has the stage.
        had: whether this process has had the stage, and lost it to a newer one, or to whoever was told to steal it.
    """

    steal: tuple[str, ...] = ()
    run: str = ""
    had: bool = False
    _torn_since: float | None = None

    def __call__(self, claim: Claim) -> bool:
        """Whether to take the stage over from whoever has that claim."""
        of_ours = bool(self.run) and claim.run == self.run and not claim.alive
        return self._nobodys(claim) or (not self.had and (of_ours or claim.mark in self.steal))

    def _nobodys(self, claim: Claim) -> bool:
        """Whether a claim has been unreadable for so long that nobody holds it.

        A disk or a power cut has spoilt it, or whoever was making it has ended. A process whose own claim it was has
        seen by now that it is no longer there, and has left the stage.
        """
        now = time.monotonic()
        self._torn_since = None if claim != Claim() else self._torn_since or now
        return self._torn_since is not None and now - self._torn_since > SILENT


def to_steal(stages: Iterable[Stage[Any]], store: Store) -> tuple[tuple[str, ...], list[str]]:
    """Return the marks of the claims that stand now and whose processes are not seen to live, and a line for each one.

    What somebody claims later is not among them, nor is a claim that can't be read, which is nobody's soon enough.
    """
    marks, said = [], []
    for stage in stages:
        claim = holder(store.folder(stage.kind, stage.id))
        if claim is None or not claim.mark:
            continue
        if claim.alive:
            said.append(f"{stage.label}: {claim} has it, which lives; it is waited for")
        else:
            marks.append(claim.mark)
            said.append(f"{stage.label}: {claim} has it; it is taken over")
    return tuple(marks), said
