"""What ``--dry-run`` prints: cells, stages, what is cached and shared, and how long the rest may take."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from ddpmkit.cli.console import print_rows
from ddpmkit.cli.power import power_json, power_line
from ddpmkit.cli.streams import data
from ddpmkit.plugin import spec
from ddpmkit.study.config import Cell
from ddpmkit.study.design import read_zip, size
from ddpmkit.study.estimate import Guess, estimate
from ddpmkit.study.goes_on import goes_on, lines
from ddpmkit.study.kind import kinds_of
from ddpmkit.study.prepare import Prepared
from ddpmkit.text import clock
from ddpmkit.text import size as size_text

T = TypeVar("T")
MOST = 20  # cells that are listed one by one
WORTH = 80  # passes of one micro-batch, above which a training is worth timing a few
ENDS = 3  # cells and levels at either end that stand for all where there are many


def print_plan(prepared: Prepared, *, as_json: bool, until: bool = False) -> None:
    """Print the plan of a study on stdout; as JSON with every cell, as text with its axes where the cells are many.

    Args:
        prepared: The study.
        as_json: Whether as JSON.
        until: Whether train seeds will be added until verdicts are settled.
    """
    plan, study = prepared.plan, prepared.study
    guess = estimate(prepared)
    todo = {s.id for s in prepared.todo}
    kinds: dict[str, dict[str, Any]] = {}
    for kind in kinds_of(plan.stages.values()):
        stages = [s for s in plan.stages.values() if s.kind == kind]
        left = sum(s.id in todo for s in stages)
        kinds[kind] = {"total": len(stages), "cached": len(stages) - left, "to_run": left, **guess.kinds[kind]}
    results = len(plan.results)
    left_out = 0
    if study.only or study.exclude:
        left_out = size(study.axes, [read_zip(text) for text in study.zips], study.design) - len(study.cells())
    if as_json:
        record = {"study": study.name, "cells": [c.label for c in plan.cells], "results": results, "stages": kinds}
        counts = sorted(goes_on(prepared).items())
        record |= {"goes_on": [{"trainings": n, "steps": steps, "from": step} for (steps, step), n in counts]}
        record |= {"adds": list(prepared.adds)}
        record["excluded"] = [list(e) for e in plan.excluded]
        record |= {"left_out": left_out, "bytes": guess.size, **power_json(prepared, until=until)}
        print(json.dumps({**record, "seconds": guess.seconds, "basis": guess.basis}, indent=1), file=data())
        return
    seeds = f"{len(study.train_seeds)} train seeds x {len(study.sample_seeds)} sample seeds"
    title = f"study {study.name}: {len(plan.cells)} cells x {seeds} = {results} results"
    heads, rows = ["cell", *(plan.cells[0].point or ("schedule",))], cell_rows(plan.cells)
    if sys.stdout.isatty():  # a label says the level on every axis; columns of their own are for pipes
        heads, rows = heads[:1], [row[:1] for row in rows]
    if len(rows) > MOST:
        print_rows(title, ("axis", "levels", "cells with each"), axis_rows(plan.cells), prose=(2,), titled=True)
        rows = _ends(rows, (f"... {len(rows) - 2 * ENDS} more", *[""] * (len(heads) - 1)))
        title = "cells"
    print_rows(title, heads, rows, titled=True)
    print_rows(
        "stages",
        ("stage", "total", "cached", "to run", "each", "together"),
        [
            (kind, str(k["total"]), str(k["cached"]), str(k["to_run"]), _clock(k["each"]), _clock(k["together"]))
            for kind, k in kinds.items()
        ],
        titled=True,
    )
    trainings = kinds["train"]["total"]
    if trainings < results:
        print(
            f"shared: {results} results need {trainings} trainings; what only sampling sees retrains nothing",
            file=sys.stderr,
        )
    if left_out:
        print(
            f"left out: {left_out} of {left_out + len(plan.cells) + len(plan.excluded)} points, by --only or --exclude",
            file=sys.stderr,
        )
    for line in (said_of(guess), *lines(prepared), power_line(prepared, until=until)):
        print(line, file=sys.stderr)


def print_head(prepared: Prepared, *, until: bool = False) -> None:
    """Say on stderr what a run is about to do: its cells, its stages and what of them is left, its time and disk.

    ``until`` as for :func:`print_plan`.
    """
    plan, todo = prepared.plan, Counter(s.kind for s in prepared.todo)
    if not todo:
        return
    total = Counter(s.kind for s in plan.stages.values())
    kinds = (f"{kind} {todo[kind]}" + (f" of {n}" if n > todo[kind] else "") for kind, n in total.items() if todo[kind])
    print(
        f"plan: {len(plan.cells)} cells, {len(plan.results)} results; {len(prepared.todo)} of {len(plan.stages)} "
        f"stages to do: {', '.join(kinds)}",
        file=sys.stderr,
    )
    # A few steps of each network are timed for it; of a training that is hardly longer that is not worth the while.
    longest = max((s.work for s in prepared.todo if s.spec.cost == "training"), default=0.0)
    if longest > WORTH * prepared.study.base.micro_batch:
        print(said_of(estimate(prepared)), file=sys.stderr)
    for line in (*lines(prepared), power_line(prepared, until=until)):
        print(line, file=sys.stderr)


def said_of(guess: Guess) -> str:
    """The line of an estimate."""
    disk = "" if guess.size is None else f"; about {size_text(guess.size)} of disk"
    if guess.seconds is None:
        return f"estimate: {guess.basis}; without --no-probe a few steps of it are timed{disk}"
    return f"estimate: {clock(guess.seconds)} with {guess.jobs} workers, {guess.basis}{disk}"


def _clock(seconds: float | None) -> str:
    return "-" if seconds is None else clock(seconds)


def axis_rows(cells: Sequence[Cell]) -> list[tuple[str, str, str]]:
    """An axis a row: its number of levels, and its levels, each with the number of cells that have it."""
    rows = []
    for axis in cells[0].point:
        counts = Counter(_text(c.point[axis]) for c in cells)
        levels = [f"{level} ({n})" for level, n in counts.items()]
        rows.append((axis, str(len(levels)), ", ".join(_ends(levels, f"... {len(levels) - 2 * ENDS} more"))))
    return rows


def cell_rows(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """A cell a row: its label, and its level on each axis."""
    return [(c.label, *(_text(v) for v in c.point.values() or (c.settings.schedule,))) for c in cells]


def _ends(items: Sequence[T], left_out: T) -> list[T]:
    """The first of many and the last, and between them what stands for the others."""
    return list(items) if len(items) <= 2 * ENDS + 1 else [*items[:ENDS], left_out, *items[-ENDS:]]


def _text(value: object) -> str:
    return value if isinstance(value, str) else spec.encode(value)
