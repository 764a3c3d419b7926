"""A stage and its job: what is known of it, from Slurm's accounting and controller, and from its own files."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from ddpmkit import Task

from ddpmkit_slurm.states import UNDERWAY, Seen


@dataclass
class Submitted:
    """A stage and its job."""

    task: Task
    job: str
    file: Path
    seen: Seen = field(default_factory=lambda: Seen("SUBMITTED"))
    since: float = field(default_factory=time.monotonic)  # when Slurm last had another word of it
    heard: float = 0.0  # when it last had news itself, or the controller was asked
    over: bool = False  # the controller has said that it is
    begun: bool = False
    news: str = ""

    def take(self, said: Seen | None, now: float) -> bool:
        """Take what the accounting says, None for nothing; return whether it is another state.

        That a job is over stays, once the controller has said so: it forgets jobs within minutes, and the accounting
        may never hear of an end ("runaway jobs").
        """
        if said is None or (self.over and said.state in UNDERWAY):
            said = Seen("UNKNOWN") if self.seen.state in UNDERWAY else self.seen
        new = said.state != self.seen.state
        self.seen, self.since = said, now if new else self.since
        return new

    def take_from_controller(self, said: Seen, now: float) -> None:
        """Take what the controller says; of a job that is underway the accounting knows more, where it knows it."""
        self.over = said.state not in UNDERWAY
        if self.over or self.seen.state not in UNDERWAY:
            self.seen, self.since = said, now

    def silent_for(self, now: float) -> float:
        """Seconds since anything was heard of it."""
        return now - max(self.since, self.heard)

    def said(self, ending: str) -> str | None:
        """Read what the job has written beside its file; None where there is nothing."""
        try:
            return Path(f"{self.file}{ending}").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
