"""What ``--dry-run`` prints: cells, stages, what is cached and shared, and how long the rest may take."""

from __future__ import annotations

import json
import sys

from ddpmkit.cli.console import print_rows
from ddpmkit.cli.streams import data
from ddpmkit.study.estimate import estimate
from ddpmkit.study.progress import KINDS, clock
from ddpmkit.study.runner import Prepared


def print_plan(prepared: Prepared, *, as_json: bool) -> None:
    """Print the plan of a study on stdout."""
    plan, study = prepared.plan, prepared.study
    guess = estimate(prepared)
    todo = {s.id for s in prepared.todo}
    kinds = {}
    for kind in KINDS:
        stages = [s for s in plan.stages.values() if s.kind == kind]
        if stages:
            left = sum(s.id in todo for s in stages)
            kinds[kind] = {"total": len(stages), "cached": len(stages) - left, "to_run": left, **guess.kinds[kind]}
    results = len(plan.results)
    if as_json:
        record = {"study": study.name, "cells": [c.label for c in plan.cells], "results": results, "stages": kinds}
        print(json.dumps({**record, "seconds": guess.seconds, "basis": guess.basis}, indent=1), file=data())
        return
    seeds = f"{len(study.train_seeds)} train seeds x {len(study.sample_seeds)} sample seeds"
    print_rows(
        f"study {study.name}: {len(plan.cells)} cells x {seeds} = {results} results",
        ("cell", *(f"{axis}" for axis in plan.cells[0].point or ("schedule",))),
        [(c.label, *(str(v) for v in c.point.values() or (c.settings.schedule,))) for c in plan.cells],
    )
    print_rows(
        "stages",
        ("stage", "total", "cached", "to run", "each", "together"),
        [
            (kind, str(k["total"]), str(k["cached"]), str(k["to_run"]), clock(k["each"]), clock(k["together"]))
            for kind, k in kinds.items()
        ],
    )
    trainings = kinds["train"]["total"]
    if trainings < results:
        print(
            f"shared: {results} results need {trainings} trainings; what only sampling sees retrains nothing",
            file=sys.stderr,
        )
    print(f"estimate: {clock(guess.seconds)} with {guess.jobs} workers, {guess.basis}", file=sys.stderr)
