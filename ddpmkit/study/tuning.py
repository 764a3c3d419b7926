"""The trials of a study that is tuned, a study of their own, and the study with what they found.

The trials are an ordinary study: the cells crossed with the values, at train seeds of their own, whose one metric is
the bound on the validation images. Its stages are shared and resumed like all others, and its report shows every trial.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace

from ddpmkit.errors import DdpmkitError
from ddpmkit.study.config import Cell, Study
from ddpmkit.study.design import FULL
from ddpmkit.study.plan import Plan, Result
from ddpmkit.study.prepare import Prepared, prepare_study
from ddpmkit.study.records import NllRecord
from ddpmkit.study.settings import FIELDS, NLL
from ddpmkit.study.store import Store
from ddpmkit.study.tune import Tune, Values, trials_name
from ddpmkit.study.until import replanned


def trials_of(study: Study, tune: Tune) -> Study:
    """Return the study of the trials: every cell with every combination of values."""
    axes = {**study.axes, **tune.lists, "nll_split": ("validation",)}
    axes = {name: axes[name] for name in FIELDS if name in axes}
    base = replace(study.base, **{name: values[0] for name, values in axes.items()})
    crossed = tuple(_label(study, cell, values) for cell in study.cells() for values in tune.trials())
    every = replace(
        study, name=trials_name(study.name), base=base, axes=axes, train_seeds=tune.seeds, sample_seeds=(0,),
        metrics=(NLL,), only=(), zips=(), exclude=(), design=FULL, unsaid=(), scored=(), stopped={}, orderings=(),
        tune=None,
    )  # fmt: skip
    return every if {*crossed} == {c.label for c in every.cells()} else replace(every, only=crossed)


def prepare_trials(prepared: Prepared, tune: Tune) -> Prepared:
    """Plan the trials of a study.

    Raises:
        DdpmkitError: when their name is another study's.
    """
    out, registry, probe = prepared.store.out, prepared.registry, prepared.probed
    study = trials_of(prepared.study, tune)
    return prepare_study(study, out=out, registry=registry, run_options=prepared.run_options, probe=probe)


def choices(study: Study, tune: Tune, trials: Prepared) -> dict[str, Values] | None:
    """Return the best values of each cell, the mean bound over the trials' seeds the least; None while some are open.

    A trial that diverged is the worst; of two that are equal the first is taken.

    Raises:
        DdpmkitError: when all trials of a cell diverged.
    """
    by_label: dict[str, list[Result]] = {}
    for result in trials.plan.results:
        by_label.setdefault(result.cell, []).append(result)
    chosen: dict[str, Values] = {}
    for cell in study.cells():
        bounds: list[tuple[float, Values]] = []
        for values in tune.trials():
            found = [_bound(r, trials.plan, trials.store) for r in by_label.get(_label(study, cell, values), ())]
            if None in found:
                return None
            if found:
                bounds.append((sum(b for b in found if b is not None) / len(found), values))
        best, values = min(bounds, key=lambda pair: pair[0]) if bounds else (0.0, {})
        if math.isinf(best):
            raise DdpmkitError(f"every trial of '{cell.label}' diverged", f"other values than {' '.join(tune.texts())}")
        chosen[cell.label] = values
    return chosen


def tuned(prepared: Prepared, run: Callable[[Prepared], object]) -> Prepared:
    """Run the trials of a study as far as they are not done, and return the study planned with what they found.

    Args:
        prepared: A planned study; one that is not tuned is returned as it is.
        run: Runs a planned study.

    Raises:
        DdpmkitError: when a trial failed, or all of a cell diverged.
    """
    tune = prepared.study.tune
    if tune is None:
        return prepared
    trials = prepare_trials(prepared, tune)
    found = choices(prepared.study, tune, trials)
    if found is None:
        run(trials)
        found = choices(prepared.study, tune, trials)
    if found is None:
        name = trials.study.name
        raise DdpmkitError(f"the trials in study '{name}' are not whole; the same command goes on", f"status {name}")
    return with_choices(prepared, replace(tune, chosen=found, study=trials.study.name))


def with_choices(prepared: Prepared, tune: Tune) -> Prepared:
    """Return a study planned with the values that its cells got."""
    planned, lines = replanned(prepared, replace(prepared.study, tune=tune), prepared.there)
    for line in lines:
        print(line, file=sys.stderr)
    return planned


def _label(study: Study, cell: Cell, values: Values) -> str:
    """The name of a trial: its place on the axes of the study of the trials."""
    point = {**cell.point, **values}
    return Cell(cell.settings, {name: point[name] for name in FIELDS if name in point}).label


def _bound(result: Result, plan: Plan, store: Store) -> float | None:
    """The bound of a trial, bits/dim: infinite where it diverged, None where it is open."""
    if result.nll is None:
        return None
    record = store.record(NllRecord, result.nll)
    if record is not None:
        return (record.unclipped if record.reported == "unclipped" else record.clipped).total
    resting = [("nll", result.nll), *plan.stages[result.nll].needs, ("train", result.train)]
    return math.inf if any(store.status(*stage).get("state") == "diverged" for stage in resting) else None
