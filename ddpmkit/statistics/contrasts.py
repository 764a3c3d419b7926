"""A family of contrasts paired by seed: differences, tests, Holm over the family, verdicts in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from ddpmkit.errors import check_choice
from ddpmkit.statistics.anytime import Anytime, confidence_sequence, e_value
from ddpmkit.statistics.equivalence import equivalence_p
from ddpmkit.statistics.holm import holm, holm_levels
from ddpmkit.statistics.intervals import ALPHA, t_interval
from ddpmkit.statistics.paired import correlation, paired_p, sign_flip_floor, sign_flip_p, without_spread
from ddpmkit.statistics.rounding import ROUNDING, cleared

K = TypeVar("K", bound=Hashable)
ONE_RESULT = "one result"  # both sides rest on the same stages: the metric does not see what tells the cells apart


@dataclass(frozen=True)
class Pairs:
    """Both sides of a contrast on the train seeds that they share.

    Attributes:
        seeds: the common train seeds.
        cell: the values of the side that is judged, one a seed.
        base: the values of the side that it is held against.
        cell_whole: False where a seed of the cell diverged or failed; the cell is then not called better.
        base_whole: the same of the other side; the cell is then not called worse.
        scale: size of the largest number that either side was made of; by default of the sides themselves.
    """

    seeds: tuple[int, ...]
    cell: tuple[float, ...]
    base: tuple[float, ...]
    cell_whole: bool = True
    base_whole: bool = True
    scale: float = 0.0

    @classmethod
    def match(
        cls, cell: Mapping[int, float], base: Mapping[int, float], cell_whole: bool = True, base_whole: bool = True
    ) -> Pairs:
        """Pair two cells, train seed -> value, on the seeds that both have."""
        seeds = tuple(sorted(cell.keys() & base.keys()))
        return cls(seeds, tuple(cell[s] for s in seeds), tuple(base[s] for s in seeds), cell_whole, base_whole)

    @property
    def rounding(self) -> float:
        """What floating point may have added to a difference: a few units in the last place of the largest number."""
        return ROUNDING * max((self.scale, *map(abs, self.cell), *map(abs, self.base)))

    @property
    def differences(self) -> tuple[float, ...]:
        """The differences cell - base, one a seed; those that are rounding alone are zero."""
        return tuple(cleared(a - b, self.rounding) for a, b in zip(self.cell, self.base, strict=True))


@dataclass(frozen=True)
class Contrast:
    """The difference of two cells, paired by train seed.

    Attributes:
        difference: mean of (cell - baseline) over the common seeds; 0 where it is no more than rounding.
        low: lower end of the interval, at the level that Holm gave this contrast, so that it agrees with the verdict.
        high: its upper end.
        p: two-sided p of the paired t test, not adjusted.
        p_holm: adjusted for all contrasts of the family; None where nothing was tested.
        correlation: realised correlation between the two cells over seeds; at or below 0 the pairing gained nothing.
        n: number of common seeds.
        verdict: better, worse, inconclusive, "no gap larger than" the margin, one result (both sides rest on the
            same ones), single seed, no common seed, not comparable, not ranked; of an interaction: interaction.
        p_sign_flip: exact two-sided p of the sign-flip test, not adjusted; it decides nothing.
        sign_flip_floor: the smallest p that this test can give with n pairs, 2 / 2^n.
        level: 1 - level is the confidence of the interval.
        margin: the gap that was said beforehand not to matter.
        p_equivalence: p of the two one-sided tests against the margin, not adjusted; None where nothing has a spread.
        p_equivalence_holm: adjusted for the equivalences of the family.
        equivalence_low: lower end of the interval that lies inside (-margin, margin) exactly when Holm accepts it.
        equivalence_high: its upper end.
        seeds: the common seeds.
        anytime: the e-value and its confidence sequence, which hold however often the numbers were looked at; None
            where nothing is ranked, or there is no common seed. Of a study that has grown its verdict is ``verdict``.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    correlation: float | None
    n: int
    verdict: str
    p_sign_flip: float | None = None
    sign_flip_floor: float | None = None
    level: float | None = None
    margin: float | None = None
    p_equivalence: float | None = None
    p_equivalence_holm: float | None = None
    equivalence_low: float | None = None
    equivalence_high: float | None = None
    seeds: tuple[int, ...] = ()
    anytime: Anytime | None = None

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The ends of the interval that agrees with the verdict: of a study that has grown the confidence sequence."""
        found = self.anytime if self.anytime and self.anytime.stands else self
        return found.low, found.high

    @property
    def flat(self) -> bool:
        """Whether the differences are the same on every seed, be it zero: they have no spread, and so no interval."""
        return self.n > 1 and self.low is None


def words(lower_is_better: bool | None) -> tuple[str, str] | None:
    """Return what a difference below and above zero is called; None for a metric that ranks nothing."""
    return None if lower_is_better is None else ("better", "worse") if lower_is_better else ("worse", "better")


def contrasts(
    cells: Mapping[str, Mapping[int, float]],
    baseline: str,
    *,
    lower_is_better: bool | None = True,
    never_better: frozenset[str] = frozenset(),
    alpha: float = ALPHA,
    margin: float | None = None,
) -> dict[str, Contrast]:
    """Compare every cell with the baseline on one metric; these contrasts are the family that Holm adjusts over.

    Args:
        cells: cell -> train seed -> value.
        baseline: The cell that the others are compared with.
        lower_is_better: The metric's direction; None for a metric that ranks nothing.
        never_better: Cells with a diverged or failed seed, which are not called better on the seeds that are left; the
            others are then not called worse than such a baseline either.
        alpha: Family-wise error rate.
        margin: The gap, set beforehand, up to which two cells count as equally good.

    Raises:
        DdpmkitError: for a baseline that is none of the cells.
    """
    check_choice("baseline", baseline, cells)
    pairs = {
        name: Pairs.match(values, cells[baseline], name not in never_better, baseline not in never_better)
        for name, values in cells.items()
        if name != baseline
    }
    return judge(pairs, words(lower_is_better), alpha=alpha, margin=margin)


def judge(
    family: Mapping[K, Pairs],
    words: tuple[str, str] | None = ("better", "worse"),
    *,
    alpha: float = ALPHA,
    margin: float | Mapping[K, float] | None = None,
    copies: Mapping[K, K] | None = None,
    same: Collection[K] = (),
    grown: bool = False,
    size: int = 0,
) -> dict[K, Contrast]:
    """Test every contrast of a family, adjust over the family, and say what may be said.

    A contrast is better or worse when Holm rejects "no difference" at alpha. Else it has no gap larger than the margin
    when Holm over the two one-sided tests says so. Contrasts of the same results are nothing, and those of one seed
    can't be tested; neither counts in the family. Other numbers that tie on every seed may do so by chance, as shares
    and counts do, and count with p = 1.

    Args:
        family: any key -> both sides of the contrast.
        words: What a difference below zero and one above are called; None for a metric that ranks nothing.
        alpha: Family-wise error rate, once for the differences and once for the equivalences.
        margin: See :func:`equivalence_p`; one for all, or each contrast's own.
        copies: key -> the key of the contrast that it is another name of, since both rest on the same results; it does
            not count, and has the p and the level of that one.
        same: the contrasts whose two sides rest on the same results.
        grown: Whether seeds were added after a look, so that the anytime-valid verdicts stand.
        size: How many contrasts were stated beforehand; those that can't be tested, or not yet, then count with p = 1.
    """
    p_values, first = {}, copies or {}
    if words is not None:
        for key, pairs in family.items():
            p = paired_p(pairs.differences, pairs.rounding)
            if p is not None and key not in first and key not in same:
                p_values[key] = p
    p_holm, levels = _holm(p_values, size), _levels(p_values, alpha, size)
    margins: dict[K, float | None] = {k: margin.get(k) if isinstance(margin, Mapping) else margin for k in family}
    equivalence = {
        key: equivalence_p(family[key].differences, gap, family[key].rounding)
        for key in p_values
        if (gap := margins[key]) is not None
    }
    p_equivalence = {key: p for key, p in equivalence.items() if p is not None}
    p_equivalence_holm, equivalence_levels = _holm(p_equivalence, size), _levels(p_equivalence, alpha, size)
    needed = max(1, size, len(p_values)) / alpha  # of an e-value
    out = {}
    for name, pairs in family.items():
        key, d = first.get(name, name), family[first.get(name, name)].differences
        if not d:
            out[name] = Contrast(math.nan, None, None, None, None, None, 0, "no common seed")
            continue
        level = levels.get(key, alpha)
        interval = t_interval(d, 1 - level, pairs.rounding)
        # An interval of no width would claim what nobody knows.
        if name not in same and without_spread(d, pairs.rounding):
            interval = replace(interval, low=None, high=None)
        equal_at = 1 - 2 * equivalence_levels[key] if key in p_equivalence else None
        equivalence_interval = None if equal_at is None else t_interval(d, equal_at, pairs.rounding)
        gap = margins[name]
        fixed = _verdict(pairs, interval.mean, words, p_holm.get(key), p_equivalence_holm.get(key), alpha, gap)
        anytime = _anytime(pairs, d, words, needed, gap)
        if name in same:
            fixed, anytime = ONE_RESULT, replace(anytime, verdict=ONE_RESULT) if anytime else None
        if anytime and grown:
            anytime = replace(anytime, stands=True)
        out[name] = Contrast(
            interval.mean,
            interval.low,
            interval.high,
            paired_p(d, pairs.rounding) if words is not None else None,
            p_holm.get(key),
            correlation(pairs.cell, pairs.base),
            len(d),
            anytime.verdict if anytime and anytime.stands else fixed,
            sign_flip_p(d) if words is not None else None,
            sign_flip_floor(len(d)),
            level if interval.low is not None else None,
            gap,
            p_equivalence.get(key),
            p_equivalence_holm.get(key),
            equivalence_interval.low if equivalence_interval else None,
            equivalence_interval.high if equivalence_interval else None,
            pairs.seeds,
            anytime,
        )
    return out


def _verdict(
    pairs: Pairs,
    mean: float,
    words: tuple[str, str] | None,
    p_holm: float | None,
    p_equal: float | None,
    alpha: float,
    margin: float | None,
) -> str:
    if words is None:
        return "not ranked"
    if p_holm is None:
        return "single seed"
    return _said(pairs, words[mean > 0], p_holm <= alpha, p_equal is not None and p_equal <= alpha, margin)


def _anytime(
    pairs: Pairs, d: tuple[float, ...], words: tuple[str, str] | None, needed: float, margin: float | None
) -> Anytime | None:
    """Judge one contrast by its e-value, held against the one that its family needs."""
    if words is None:
        return None
    e, sequence = e_value(d, pairs.rounding), confidence_sequence(d, 1 / needed, pairs.rounding)
    low, high = sequence or (None, None)
    if e is None:
        return Anytime(e, needed, low, high, "single seed")
    inside = margin is not None and sequence is not None and -margin < sequence[0] and sequence[1] < margin
    return Anytime(e, needed, low, high, _said(pairs, words[math.fsum(d) > 0], e >= needed, inside, margin))


def _said(pairs: Pairs, word: str, differs: bool, equal: bool, margin: float | None) -> str:
    """The verdict on a tested contrast.

    Args:
        pairs: Both sides.
        word: What a difference of this sign is called.
        differs: Whether the test found one.
        equal: Whether it was shown to be below the margin.
        margin: That margin.
    """
    whole = pairs.cell_whole and pairs.base_whole
    if differs:
        # The side that would win must have kept all its seeds: those that are left may be the lucky ones.
        may = {"better": pairs.cell_whole, "worse": pairs.base_whole}.get(word, whole)
        return word if may else "inconclusive"
    return f"no gap larger than {margin:g}" if equal and whole else "inconclusive"


def _holm(ps: Mapping[K, float], size: int = 0) -> dict[K, float]:
    """Holm's adjusted p-values in a family that is filled up to its size with p = 1."""
    return dict(zip(ps, holm([*ps.values(), *[1.0] * (size - len(ps))]), strict=False))


def _levels(ps: Mapping[K, float], alpha: float, size: int) -> dict[K, float]:
    """Their levels in such a family."""
    levels = holm_levels(dict(enumerate([*ps.values(), *[1.0] * (size - len(ps))])), alpha)
    return {key: levels[index] for index, key in enumerate(ps)}
