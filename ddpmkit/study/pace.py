"""How fast stages ran: the steady pace of each, without what comes before its first step, and what that took.

Imports, reading, building and compiling are no part of a pace: of a stage of a few steps they are nearly all of its
time, and a stage of a thousand times as many steps has them once too.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ddpmkit.plugin.execution import Emit

LONG = 10.0  # seconds of a stage, of which what comes before its first step is the smaller part
Kind = tuple[str, str]  # the kind of a stage, its network


@dataclass
class Steady:
    """The pace of one stage, between the first and the last time that it says how far it is."""

    first: tuple[float, float] | None = None  # when, how far
    last: tuple[float, float] | None = None

    def heard(self, emit: Emit) -> Emit:
        """Return what to emit events by, so that they are listened to."""

        def both(event: dict[str, Any]) -> None:
            # What stands still, or goes on from where another one was, has made no step yet.
            if event["event"] == "progress" and "note" not in event and not event.get("begins"):
                self.last = time.perf_counter(), float(event["done"])
                self.first = self.first or self.last
            emit(event)

        return both

    def pace(self, work: float) -> float | None:
        """Return seconds per unit of a stage's work; None where it said only once how far it is."""
        if self.first is None or self.last is None or not (done := self.last[1] - self.first[1]) > 0 or not work:
            return None
        return (self.last[0] - self.first[0]) / (done * work)


@dataclass
class Seen:
    """What the finished stages of one kind and network took.

    Attributes:
        alike: work -> the seconds of all stages of that work.
        paces: of those that know it, seconds per unit of work.
        before: of these, the seconds that were no steps.
        long: seconds per unit of work of long stages that do not know their pace.
    """

    alike: defaultdict[float, list[float]] = field(default_factory=lambda: defaultdict(list))
    paces: list[float] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    long: list[float] = field(default_factory=list)

    def seconds(self, work: float) -> float | None:
        """Return the seconds of a stage of so much work; None where these tell only what start-up takes."""
        if work in self.alike:
            return median(self.alike[work])
        if self.paces:
            return median(self.before) + median(self.paces) * work
        return median(self.long) * work if self.long else None

    def beside(self, pace: float, work: float) -> float:
        """Return the same by a pace from elsewhere, with what start-up took here."""
        shorter = [seconds - pace * done for done, all_ in self.alike.items() for seconds in all_]
        return max(0.0, median(shorter) if shorter else 0.0) + pace * work

    def most(self, work: float) -> float | None:
        """Return no less than a stage of so much work takes, for want of anything better."""
        return max((median(s) * max(1.0, work / done) for done, s in self.alike.items()), default=None)


def seen(statuses: Iterable[tuple[Kind, Mapping[str, Any]]]) -> dict[Kind, Seen]:
    """Return what finished stages took, from their status records."""
    out: defaultdict[Kind, Seen] = defaultdict(Seen)
    for kind, record in statuses:
        work, seconds, pace = float(record["work"]), float(record["seconds"]), record.get("pace")
        here = out[kind]
        here.alike[work].append(seconds)
        if isinstance(pace, (int, float)) and pace > 0:
            here.paces.append(float(pace))
            here.before.append(max(0.0, seconds - pace * work))
        elif seconds > LONG:
            here.long.append(seconds / work)
    return dict(out)
