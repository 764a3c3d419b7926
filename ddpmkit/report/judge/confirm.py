"""Confirmation: the best cell and the baseline once more on fresh seeds, because the best of several was selected."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.frames import Records
from ddpmkit.statistics import ONE_RESULT, Contrast


@dataclass(frozen=True)
class Confirmation:
    """What to run: these two cells on these train seeds, everything else as in the study.

    Attributes:
        study: the study that selected.
        metric: the metric by which.
        cell: the cell that looked best; the best of the others where the baseline itself looked best.
        baseline: what it is held against.
        train_seeds: seeds that the study did not use.
        sample_seeds: those of the study.
        selected: the contrast in the study, which the selection flatters.
        note: how the cell was chosen, in words.
    """

    study: str
    metric: str
    cell: str
    baseline: str
    train_seeds: tuple[int, ...]
    sample_seeds: tuple[int, ...]
    selected: Contrast
    note: str

    @property
    def cells(self) -> tuple[str, str]:
        """The two cells to run, the baseline first."""
        return self.baseline, self.cell


@dataclass(frozen=True)
class Confirmed:
    """The fresh seeds' own result; the study's seeds are not in it.

    Attributes:
        plan: what was asked for.
        contrasts: metric -> contrast on the fresh seeds; only that of ``plan.metric`` was asked for beforehand.
        holds: True when the fresh seeds alone give the selected metric the verdict "better" (the challenger's, or
            "worse" where the baseline looked best), False when not.
        summary: everything about the fresh seeds.
        notes: what must be said.
    """

    plan: Confirmation
    contrasts: dict[str, Contrast]
    holds: bool
    summary: Summary
    notes: tuple[str, ...]


def confirmation(summary: Summary, seeds: int = 5, metric: str | None = None) -> Confirmation:
    """Return which cells and fresh seeds confirm what a study seems to say.

    The cell is the one with the best mean among those that are comparable with the baseline and lost no seed.

    Args:
        summary: The study.
        seeds: Number of fresh train seeds, at least 2.
        metric: The metric that selects; the first that ranks by default.

    Raises:
        DdpmkitError: when there is no such metric, it ranks nothing, there are too few seeds, or nothing to select.
    """
    if seeds < 2:
        raise DdpmkitError(f"{seeds} fresh seed{'' if seeds == 1 else 's'} can't confirm anything", "--confirm 5")
    ranked = [m for m in summary.metrics if summary.directions.get(m, "lower") != "none"]
    if metric is not None and metric not in ranked:
        why = "ranks nothing" if metric in summary.metrics else "is not in the study"
        raise DdpmkitError(f"metric '{metric}' {why}", f"metrics: {', '.join(ranked)}")
    if not ranked:
        raise DdpmkitError("the study has no metric that ranks its cells", "ddpmkit report")
    chosen = metric or ranked[0]
    sign = -1 if summary.directions.get(chosen) == "higher" else 1
    candidates = {
        c: d
        for c, d in summary.differences.get(chosen, {}).items()
        if d.n > 0 and d.verdict not in ("not comparable", ONE_RESULT) and not set(summary.counts[c]) - {"done"}
    }
    if not candidates:
        raise DdpmkitError(f"no cell can be held against {summary.baseline} on {chosen}", "ddpmkit status")
    cell = min(candidates, key=lambda c: sign * candidates[c].difference)
    ahead = sign * candidates[cell].difference < 0
    note = f"{cell} has the best mean of {chosen} among {len(candidates) + 1} cells"
    if candidates[cell].difference == 0:
        note = f"{cell} and {summary.baseline} have the same mean of {chosen}, and no other a better one"
    elif not ahead:
        note = f"{summary.baseline} itself has the best mean of {chosen}; {cell} comes next"
    start = max(summary.train_seeds, default=-1) + 1
    return Confirmation(
        summary.study,
        chosen,
        cell,
        summary.baseline,
        tuple(range(start, start + seeds)),
        summary.sample_seeds,
        candidates[cell],
        note,
    )


def confirmed(plan: Confirmation, fresh: Records, *, margin: dict[str, float] | str | None = None) -> Confirmed:
    """Summarise a confirmation from its own seeds alone.

    One contrast on one metric was asked for, so nothing is adjusted; the other metrics stand beside it for reading.

    Args:
        plan: From :func:`confirmation`.
        fresh: The records of both cells on the fresh seeds.
        margin: As for :func:`ddpmkit.report.judge.summarise.summarise`.

    Raises:
        DdpmkitError: when a cell is missing, or a seed is not one of the fresh ones.
    """
    labels = [c["label"] for c in fresh.plan["cells"]]
    for cell in plan.cells:
        if cell not in labels:
            raise DdpmkitError(f"the confirmation has no cell '{cell}'", f"run {' and '.join(plan.cells)}")
    old = sorted({int(s) for s in fresh.results["train_seed"]} - set(plan.train_seeds))
    if old:
        raise DdpmkitError(
            f"seed {old[0]} is not one of the fresh seeds",
            f"--train-seeds {plan.train_seeds[0]}-{plan.train_seeds[-1]}",
        )
    both = {**fresh.plan, "cells": [c for c in fresh.plan["cells"] if c["label"] in plan.cells]}
    rows = fresh.results[fresh.results["cell"].isin(plan.cells)]
    records = replace(fresh, plan=both, results=rows)
    summary = summarise(records, plan.baseline, margin=margin)
    contrasts = {m: d[plan.cell] for m, d in summary.differences.items() if plan.cell in d}
    verdict = contrasts[plan.metric].verdict if plan.metric in contrasts else "no number"
    ahead = (plan.selected.difference < 0) == (summary.directions.get(plan.metric) != "higher")
    holds = verdict == ("better" if ahead else "worse")
    seeds = f"{plan.train_seeds[0]}-{plan.train_seeds[-1]}"
    notes = (
        f"{plan.note}: a selection, which flatters the winner. Fresh train seeds {seeds} alone decide below; no seed "
        "of the study is among them.",
        f"{plan.cell} against {plan.baseline} on {plan.metric}: {verdict}; in the study it was "
        f"{plan.selected.verdict}. {'Confirmed' if holds else 'Not confirmed'}.",
    )
    return Confirmed(plan, contrasts, holds, summary, notes)
