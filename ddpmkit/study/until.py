"""Add train seeds to a study where a verdict is open, until all are settled or the budget is gone.

    run; look; where a verdict is open and may still fall: one more seed for its cell and the baseline; again

Looking after each seed is fair because verdicts of a study that grows are anytime-valid. A cell whose verdict is
settled gets no more seeds: it stands on those that it has.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.study import growth
from ddpmkit.study.enter import enter
from ddpmkit.study.estimate import estimate
from ddpmkit.study.grids import There, in_ranges
from ddpmkit.study.look import Look
from ddpmkit.study.prepare import Prepared, excluded_lines, planned
from ddpmkit.study.runner import Outcome
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
        look: the last look; None where a signal came before it.
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
            f"--budget {first / 1800:.0f}h, or fewer --train-seeds; what is done is not done again",
        )
    prepared = enter(prepared)
    seeds = prepared.study.train_seeds
    # The mark: even a study that is settled at once was run by a rule that looks.
    what = f"train seeds {','.join(in_ranges([str(s) for s in seeds]))}, and more until its verdicts are settled"
    growth.add(prepared.folder, [what], (), seeds)
    while True:
        outcome = run(prepared)
        if outcome.code in (Exit.SIGINT, Exit.SIGTERM):
            return Ended(prepared, outcome, None, "stopped; the same command goes on from here")
        found = look(outcome.folder)
        have = len(prepared.study.train_seeds)
        if not found.open:
            return Ended(prepared, outcome, found, _closed(found, have))
        if have >= limits.seeds:
            return Ended(prepared, outcome, found, f"{_open(found)} with {have} train seeds, the most allowed")
        more, lines = _grown(prepared, found, min(max(1, found.fewest - have), limits.seeds - have))
        if limits.seconds is not None:
            left, needs = limits.seconds - (now() - started), _seconds(more)
            if needs > left:
                why = f"the next seeds take about {clock(needs)}, and {clock(max(0.0, left))} of the budget are left"
                return Ended(prepared, outcome, found, f"{_open(found)} after {have} train seeds: {why}")
        for line in lines:
            print(line, file=sys.stderr)
        prepared = enter(more)


def _seconds(prepared: Prepared) -> float:
    """The time that what is left takes, as far as it is known."""
    return estimate(prepared).seconds or 0.0


def seconds(text: str) -> float:
    """Read a budget of time: ``90s``, ``45m``, ``2h``, ``1.5d``.

    Raises:
        DdpmkitError: when it is none.
    """
    read = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if read is None or not float(read[1]):
        raise DdpmkitError(f"--budget: '{text}' is no time", "as in --budget 2h, 45m or 90s")
    return float(read[1]) * UNITS[read[2]]


def _grown(prepared: Prepared, found: Look, count: int) -> tuple[Prepared, list[str]]:
    """Plan the study with so many more seeds for its open cells and the baseline; the others stay as they are.

    Return what is to be said of the plan, too: a warning is said once, not once a round.
    """
    study = prepared.study
    start = max(study.train_seeds) + 1
    seeds = (*study.train_seeds, *range(start, start + count))
    going = {*found.open, found.baseline}
    stopped = {c.label: study.seeds_of(c) for c in study.cells() if c.label not in going}
    said = {*excluded_lines(prepared.plan), *(f"warning: {w}" for w in prepared.plan.warnings)}
    said |= {f"note: {n}" for n in prepared.plan.notes}
    lines = io.StringIO()
    with contextlib.redirect_stderr(lines):
        more = planned(
            replace(study, train_seeds=seeds, stopped=stopped),
            There.read(prepared.store, study.name),
            store=prepared.store,
            registry=prepared.registry,
            run_options=prepared.run_options,
        )
    return more, [line for line in lines.getvalue().splitlines() if line not in said]


def _closed(found: Look, have: int) -> str:
    stuck = f"; no seed settles {', '.join(found.stuck)}" if found.stuck else ""
    return f"every verdict on {found.metric} that seeds can settle is settled, with at most {have} train seeds{stuck}"


def _open(found: Look) -> str:
    return f"open on {found.metric}: {', '.join(found.open)}"
