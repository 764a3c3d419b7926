"""The contrasts of one metric: differences and effects of axes in one family, interactions in another, and tested."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ddpmkit.report.judge.same import Form, any_shared, form
from ddpmkit.report.judge.seeds import BySeed, Numbers, shared
from ddpmkit.report.read.meaning import Meaning, comparable
from ddpmkit.statistics import (
    Contrast,
    Effect,
    Interaction,
    Matched,
    Pairs,
    effects,
    interactions,
    judge,
    words,
)

K = TypeVar("K", bound=Hashable)
NOTHING = Contrast(math.nan, None, None, None, None, None, 0, "not comparable")


@dataclass(frozen=True)
class Design:
    """What all metrics of a study share.

    Attributes:
        baseline: the cell that the others are compared with.
        points: cell -> axis -> level, for the axes that vary.
        broken: cells some of whose results are missing; none of them is called better.
        alpha: family-wise error rate.
        grown: whether train seeds were added after a look, so that the anytime-valid verdicts stand.
    """

    baseline: str
    points: Mapping[str, Mapping[str, str]]
    broken: frozenset[str]
    alpha: float
    grown: bool = False


@dataclass(frozen=True)
class Measured:
    """One metric's numbers, and how to read them.

    Attributes:
        numbers: every cell -> its numbers.
        meanings: cell -> what its numbers mean; None where it mixes meanings.
        way: lower, higher or none: which way is better.
        margin: the gap that does not matter; None where none was said.
    """

    numbers: Mapping[str, Numbers]
    meanings: Mapping[str, Meaning | None]
    way: str
    margin: float | None

    def alike(self, cells: Sequence[str]) -> bool:
        """Whether the numbers of these cells may be compared."""
        return comparable(self.meanings, cells)

    def side_by_side(self, cells: Sequence[str]) -> dict[str, BySeed]:
        """The cells' values by train seed, over the sample seeds that all of them have."""
        return shared(self.numbers, cells)


@dataclass(frozen=True)
class Judged:
    """What is known of one metric's contrasts.

    Attributes:
        differences: cell -> its contrast with the baseline.
        effects: of whole axes, in one family with the differences.
        interactions: a family of their own.
        tested: the contrasts that Holm counts.
        spreads: the sd over seeds of each tested contrast's differences, where they differ.
        open: contrast -> what is undecided for want of seeds, with that sd.
        copies: cell -> the cell whose contrast its own is another name of, since both rest on the same stages.
    """

    differences: dict[str, Contrast]
    effects: tuple[Effect, ...]
    interactions: tuple[Interaction, ...]
    tested: tuple[Contrast, ...]
    spreads: tuple[float, ...]
    open: dict[str, tuple[Contrast, float]]
    copies: dict[str, str]


def judged(design: Design, metric: Measured) -> Judged:
    """Put one metric's differences and effects into one family, its interactions into another, and test them."""
    base, values = design.baseline, {c: n.values for c, n in metric.numbers.items()}
    ranks = words({"lower": True, "higher": False}.get(metric.way))
    family: dict[tuple[str, ...], Pairs] = {}
    if values[base]:
        for cell, mine in values.items():
            if cell != base and mine and metric.alike((cell, base)):
                both = metric.side_by_side((cell, base))
                whole = cell not in design.broken, base not in design.broken
                family["cell", cell] = Pairs.match(both[cell], both[base], *whole)
    matched = _effects(design, metric, values)
    pairs = {**family, **{k: m.pairs for k, m in matched.items()}}
    groups: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {k: ((k[1], base),) for k in family}
    groups |= {k: m.cells for k, m in matched.items()}
    contrasts, copies = _tested(metric, design, pairs, groups, ranks)
    squares: list[Matched] = interactions(
        design.points, values, base, broken=design.broken, comparable=metric.alike, shared=metric.side_by_side
    )
    ranking = ("interaction", "interaction") if ranks else None
    crossed, _ = _tested(
        metric, design, dict(enumerate(m.pairs for m in squares)), dict(enumerate(m.cells for m in squares)), ranking
    )
    counted = [k for k, c in contrasts.items() if c.p_holm is not None and k not in copies]
    # Where all differences are the same their spread is not known, rather than zero.
    spreads = {k: float(np.std(pairs[k].differences, ddof=1)) for k in counted if not contrasts[k].flat}
    return Judged(
        {c: contrasts.get(("cell", c), NOTHING) for c in values if values[base] and values[c] and c != base},
        tuple(
            Effect(m.axes[0], m.levels[0], m.references[0], len(m.cells), len(m.left_out), contrasts[k])
            for k, m in matched.items()
        ),
        tuple(_interaction(m, crossed[i]) for i, m in enumerate(squares)),
        tuple(contrasts[k] for k in counted),
        tuple(spreads.values()),
        {
            k[1] if k[0] == "cell" else f"{k[1]} {k[2]}": (contrasts[k], sd)
            for k, sd in spreads.items()
            if contrasts[k].verdict == "inconclusive" and not _found(contrasts[k], design.alpha)
        },
        {k[1]: of[1] for k, of in copies.items() if k[0] == of[0] == "cell"},
    )


def _found(c: Contrast, alpha: float) -> bool:
    """Whether the test found a difference, be it that none may be called better for want of a seed."""
    if c.anytime and c.anytime.stands:
        return (c.anytime.e or 0) >= c.anytime.needed
    return (c.p_holm or 0) <= alpha


def _tested(
    metric: Measured,
    design: Design,
    pairs: Mapping[K, Pairs],
    groups: Mapping[K, tuple[tuple[str, ...], ...]],
    ranks: tuple[str, str] | None,
) -> tuple[dict[K, Contrast], dict[K, K]]:
    """Test a family in which what rests on the same stages counts once; return which contrasts are copies of which."""
    firsts: dict[Form, K] = {}
    copies: dict[K, K] = {}
    nothing = set()
    for key, both in pairs.items() if any_shared(metric.numbers) else ():
        if both.seeds:
            rests_on = form(metric.numbers, groups[key], both.seeds)
            if not rests_on:
                nothing.add(key)
            elif firsts.setdefault(rests_on, key) != key:
                copies[key] = firsts[rests_on]
    found = judge(
        pairs, ranks, alpha=design.alpha, margin=metric.margin, copies=copies, same=nothing, grown=design.grown
    )
    return found, copies


def _effects(
    design: Design, metric: Measured, values: Mapping[str, Mapping[int, float]]
) -> dict[tuple[str, ...], Matched]:
    """The effects of whole axes that are no difference in the table already."""
    if not any(len(p) > 1 for p in design.points.values()):
        return {}
    out = {}
    for m in effects(
        design.points, values, design.baseline,
        broken=design.broken, comparable=metric.alike, shared=metric.side_by_side,
    ):  # fmt: skip
        # An effect over one pair that holds the baseline is a difference.
        groups = m.cells or m.left_out
        if len(groups) > 1 or design.baseline not in groups[0]:
            out["effect", *m.axes, *m.levels] = m
    return out


def _interaction(m: Matched, contrast: Contrast) -> Interaction:
    (a, b), (x, y), (x0, y0) = m.axes, m.levels, m.references
    return Interaction((a, b), (x, y), (x0, y0), len(m.cells), contrast)
