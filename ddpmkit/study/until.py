"""Add train seeds to a study where a verdict is open, until all are settled or the budget is gone.

    run; look; where a verdict is open and may still fall: one more seed for its cell and the baseline; again

Looking after each seed is fair because verdicts of a study that grows are anytime-valid. A cell whose verdict is
settled gets no more seeds: it stands on those that it has.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.study.config import Study
from ddpmkit.study.enter import enter
from ddpmkit.study.estimate import estimate
from ddpmkit.study.excluded import excluded_lines
from ddpmkit.study.grids import There, added, lacking, union
from ddpmkit.study.look import Look
from ddpmkit.study.prepare import Prepared, planned
from ddpmkit.study.runner import Outcome
from ddpmkit.study.study_name import grown
from ddpmkit.text import clock

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Limits:
    """When to stop although a verdict is open.

    Attributes:
        seeds: the most train seeds of a cell.
        seconds: the budget of the whole command; None for none. No round is begun that would not end in it.
    """

    seeds: int = 20
    seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    """How it ended.

    Attributes:
        prepared: the study as it was planned last.
        outcome: how its last run ended.
        look: the last look; None where a signal came before it, or another process grew the study.
        why: in words.
    """

    prepared: Prepared
    outcome: Outcome
    look: Look | None
    why: str


def until_settled(
    prepared: Prepared,
    limits: Limits,
    look: Callable[[Path], Look],
    run: Callable[[Prepared], Outcome],
    now: Callable[[], float] = time.monotonic,
) -> Ended:
    """Run a study, and add train seeds where a verdict is open until all are settled or a limit is reached.

    Args:
        prepared: The study, entered or not.
        limits: When to stop at the latest.
        look: Reads a study's folder and says what is open.
        run: Runs a planned study.
        now: The clock, in seconds.

    Raises:
        DdpmkitError: when the budget is not enough for the seeds that are asked for at first.
    """
    started = now()
    if limits.seconds is not None and (first := _seconds(prepared)) > limits.seconds:
        raise DdpmkitError(
            f"the first {len(prepared.study.train_seeds)} train seeds take about {clock(first)}, more than the budget",
            f"--budget {max(1, math.ceil(first / 1800))}h, or fewer --train-seeds; what is done is not done again",
        )
    # The mark: even a study that is settled at once was run by a rule that looks.
    prepared = enter(prepared, mark="and more until its verdicts are settled")
    while True:
        outcome = run(prepared)
        if outcome.code in (Exit.SIGINT, Exit.SIGTERM):
            return Ended(prepared, outcome, None, "stopped; the same command goes on from here")
        have = len(prepared.study.train_seeds)
        found, why = None, "another process has grown the study"
        # What another process added is run before anybody looks: a cell that lacks seeds would look like a broken one.
        if (both := _with_others(prepared)) is not None:
            more, lines = both
        else:
            found = look(outcome.folder)
            why = _open(found)
            if not found.open:
                return Ended(prepared, outcome, found, _closed(found, have))
            if found.fewest > limits.seeds:
                few = f"no verdict can fall below {found.fewest} train seeds: --max-seeds at least {found.fewest}"
                return Ended(prepared, outcome, found, f"{why} after {have} train seeds; {few}")
            if have >= limits.seeds:
                return Ended(prepared, outcome, found, f"{why} with {have} train seeds, the most allowed")
            more, lines = _grown(prepared, found, min(max(1, found.fewest - have), limits.seeds - have))
            if more.plan.results == prepared.plan.results:
                return Ended(prepared, outcome, found, f"{why} after {have} train seeds, and no more could be added")
        if limits.seconds is not None:
            left, needs = limits.seconds - (now() - started), _seconds(more)
            if needs > left:
                last = f"the next seeds take about {clock(needs)}, and {clock(max(0.0, left))} of the budget are left"
                return Ended(prepared, outcome, found, f"{why} after {have} train seeds: {last}")
        for line in lines:
            print(line, file=sys.stderr)
        prepared = enter(more)


def _seconds(prepared: Prepared) -> float:
    """The time that what is left takes, as far as it is known."""
    return estimate(prepared).seconds or 0.0


def seconds(text: str, flag: str = "--budget") -> float:
    """Read a time: ``90s``, ``45m``, ``2h``, ``1.5d``.

    Raises:
        DdpmkitError: when it is none.
    """
    read = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if read is None or not float(read[1]):
        raise DdpmkitError(f"{flag}: '{text}' is no time", f"as in {flag} 2h, 45m or 90s")
    return float(read[1]) * UNITS[read[2]]


def _grown(prepared: Prepared, found: Look, count: int) -> tuple[Prepared, list[str]]:
    """Plan the study with so many more seeds for its open cells and the baseline; the others stay as they are."""
    study = prepared.study
    start = max(study.train_seeds) + 1
    seeds = (*study.train_seeds, *range(start, start + count))
    going = {*found.open, found.baseline}
    stopped = {c.label: study.seeds_of(c) for c in study.cells() if c.label not in going}
    # Asked for now, though whoever began may have said none: seeds that nobody asked for are those that are there.
    unsaid = tuple(key for key in study.unsaid if key != "train_seeds")
    # Beside what this process knows of; what another one adds meanwhile is met where the plan is entered.
    known = There(study.grid(), study.scored, study.stopped)
    return replanned(prepared, replace(study, train_seeds=seeds, stopped=stopped, unsaid=unsaid), known)


def _with_others(prepared: Prepared) -> tuple[Prepared, list[str]] | None:
    """Plan the study with what another process has added to it since; None where none has.

    Raises:
        NameTakenError: when the name has become another study's.
    """
    study, there = prepared.study, There.read(prepared.store, prepared.study.name)
    if there is None or not added(study.grid(), there.grid):
        return None
    if lacking(study.grid(), there.grid):
        return replanned(prepared, grown(study, there, prepared.store), there)
    seeds_there = replace(study, unsaid=(*study.unsaid, "train_seeds"), stopped={})
    more, lines = replanned(prepared, union(there, seeds_there), there)
    return more, [f"note: another process has grown study '{study.name}' meanwhile; both are run", *lines]


def replanned(prepared: Prepared, study: Study, there: There | None) -> tuple[Prepared, list[str]]:
    """Plan another round, and return what is to be said of it too: a warning is said once, not once a round."""
    said = {*excluded_lines(prepared.plan), *(f"warning: {w}" for w in prepared.plan.warnings)}
    said |= {f"note: {n}" for n in prepared.plan.notes}
    lines = io.StringIO()
    with contextlib.redirect_stderr(lines):
        more = planned(
            study,
            there,
            store=prepared.store,
            registry=prepared.registry,
            # How many results there may be is asked when a run begins; then it ends by its own limits.
            run_options=replace(prepared.run_options, yes=True),
            probe=prepared.probed,
        )
    return more, [line for line in lines.getvalue().splitlines() if line not in said]


def _closed(found: Look, have: int) -> str:
    stuck = f"; no seed settles {', '.join(found.stuck)}" if found.stuck else ""
    return f"every verdict on {found.metric} that seeds can settle is settled, with at most {have} train seeds{stuck}"


def _open(found: Look) -> str:
    return f"open on {found.metric}: {', '.join(found.open)}"
