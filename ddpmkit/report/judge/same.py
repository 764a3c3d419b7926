"""Contrasts that rest on the same results: two of them are one, and one that is left with none compares nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction

from ddpmkit.report.judge.seeds import Numbers

Form = frozenset[tuple[int, Hashable, Fraction]]


def any_shared(by_cell: Mapping[str, Numbers]) -> bool:
    """Whether two cells rest on one result, as those do whose guidances ask one likelihood."""
    seen: set[tuple[int, Hashable]] = set()
    for numbers in by_cell.values():
        mine = {(train, source) for train, by in numbers.sources.items() for source in by.values()}
        if seen & mine:
            return True
        seen |= mine
    return False


def form(by_cell: Mapping[str, Numbers], groups: Sequence[Sequence[str]], seeds: Sequence[int]) -> Form:
    """Return a contrast as a sum over results: (train seed, result, its weight), where what cancels is gone.

    Args:
        by_cell: cell -> its numbers.
        groups: matched cells, (at the level, at the reference), or the four of an interaction.
        seeds: the train seeds that all of them have.
    """
    signs = (1, -1) if len(groups[0]) == 2 else (1, -1, -1, 1)
    out: defaultdict[tuple[int, Hashable], Fraction] = defaultdict(Fraction)
    for seed in seeds:
        for group in groups:
            sources = [by_cell[cell].sources[seed] for cell in group]
            both = set.intersection(*map(set, sources))
            for sign, by_sample in zip(signs, sources, strict=True):
                for sample in both:
                    out[seed, by_sample[sample]] += Fraction(sign, len(groups) * len(both))
    return frozenset((seed, source, weight) for (seed, source), weight in out.items() if weight)
