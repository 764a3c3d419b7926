"""Orderings beside a plan: the columns that they are about, and how much was known when they were written down."""

from __future__ import annotations

from dataclasses import replace

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.columns import columns_of
from ddpmkit.study.config import Study
from ddpmkit.study.orderings import Ordering, places
from ddpmkit.study.plan import Plan, Result
from ddpmkit.study.settings import NLL
from ddpmkit.study.store import Store


def with_columns(study: Study, registry: Registry) -> Study:
    """Return a study whose orderings name their metric as tables call it; the likelihood stays ``nll``.

    Raises:
        DdpmkitError: for a metric that the study does not take, or takes with several extractors.
    """
    if not study.orderings:
        return study
    names = columns_of(study, registry)
    return replace(study, orderings=tuple(_with_column(o, names, study) for o in study.orderings))


def outside(plan: Plan) -> list[str]:
    """Say which orderings are about cells that the study leaves out, a line for all of them."""
    settings = [vars(c.settings) for c in plan.cells]
    claims = [o.claim for o in plan.study.orderings if not all(places(side, settings) for side in o.sides)]
    if not claims:
        return []
    return [f"{len(claims)} orderings stay open, since the study leaves out a cell of them: {'; '.join(claims)}"]


def with_known(plan: Plan, store: Store) -> Study:
    """Return the study of a plan, its new orderings with the number of their results that are there already."""
    return replace(plan.study, orderings=tuple(_with_known(o, plan, store) for o in plan.study.orderings))


def _with_column(o: Ordering, names: tuple[tuple[str, str], ...], study: Study) -> Ordering:
    word = o.metric.lower()
    if word == NLL and NLL in study.metrics:
        return replace(o, metric=NLL)
    found = [column for metric, column in names if column == o.metric] or [
        column for metric, column in names if word in (metric, column.lower())
    ]
    if len(found) != 1:
        known = ", ".join((*(column for _, column in names), *((NLL,) if NLL in study.metrics else ())))
        problem = "is not in the study" if not found else f"is {len(found)} columns"
        raise DdpmkitError(f"ordering '{o.claim}': metric '{o.metric}' {problem}", f"one of {known}")
    return replace(o, metric=found[0])


def _with_known(o: Ordering, plan: Plan, store: Store) -> Ordering:
    if o.known is not None:
        return o
    settings = [vars(c.settings) for c in plan.cells]
    cells = {plan.cells[i].label for side in o.sides for i in places(side, settings)}
    results = (r for r in plan.results if r.cell in cells and r.train_seed in o.seeds)
    return replace(o, known=sum(any(store.done(*stage) for stage in _stages(o, r)) for r in results))


def _stages(o: Ordering, r: Result) -> list[tuple[str, str]]:
    """The stages of a result that an ordering is about."""
    if o.metric == NLL:
        return [("nll", r.nll)] if r.nll else []
    return [("score", score) for _, score, _ in r.scores]
