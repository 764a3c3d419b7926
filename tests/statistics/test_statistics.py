"""Intervals, paired tests, Holm and verdicts, against scipy, a published example, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from ddpmkit.errors import DdpmkitError
from ddpmkit.statistics import Pairs, contrasts, holm, judge, paired_p, t_interval

VERDICTS = {"better", "worse", "inconclusive"}


def as_cells(values):
    """(cells, seeds) array -> what contrasts() takes; the first row is called base."""
    names = ["base", *(f"c{i}" for i in range(1, len(values)))]
    return {name: dict(enumerate(map(float, row))) for name, row in zip(names, values, strict=True)}


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_t_interval_is_scipys(n, level):
    x = np.random.default_rng(n).normal(12.0, 3.0, n)
    expected = stats.ttest_1samp(x, 0.0).confidence_interval(level)
    got = t_interval(x.tolist(), level)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert got.mean == pytest.approx(x.mean())
    assert got.n == n


def test_t_interval_by_hand():
    # mean 2, s = 1, t_{2, 0.975} = 4.302653 (any t table)
    got = t_interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)
    assert (got.mean, got.low, got.high) == pytest.approx((2.0, 2.0 - half, 2.0 + half), abs=1e-6)


def test_a_baseline_that_is_no_cell_is_refused_with_the_cells():
    with pytest.raises(DdpmkitError, match="unknown baseline 'c3'") as caught:
        contrasts(as_cells([[1, 2], [3, 4]]), "c3")
    assert caught.value.hint == "one of base, c1"


def test_one_value_has_a_mean_and_no_interval():
    got = t_interval([4.25])
    assert (got.mean, got.low, got.high, got.n) == (4.25, None, None, 1)


def test_no_value_is_an_error():
    with pytest.raises(ValueError, match="at least one value"):
        t_interval([])


@pytest.mark.parametrize("n", [3, 5])
def test_t_interval_covers_the_truth_in_about_95_of_100_studies(n):
    rng = np.random.default_rng(20240 + n)
    x = rng.normal(7.0, 2.0, (4000, n))
    intervals = [t_interval(row) for row in x]
    covered = np.mean([i.low <= 7.0 <= i.high for i in intervals])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_paired_p_is_scipys(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(5, 1, n), rng.normal(5.5, 1, n)
    assert paired_p((a - b).tolist()) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)


@pytest.mark.parametrize("differences", [[], [0.4]])
def test_no_p_below_two_pairs(differences):
    assert paired_p(differences) is None


@pytest.mark.parametrize(
    ("differences", "p"), [([0.0, 0.0, 0.0], 1.0), ([0.5, 0.5, 0.5], 0.25), ([0.3 - 0.2, 0.2 - 0.1, 0.1], 0.25)]
)
def test_p_without_any_spread(differences, p):
    assert paired_p(differences) == p


def test_holm_on_the_textbook_example():
    # The worked example of "Holm-Bonferroni method": H4 and H1 are rejected at 0.05, H3 and H2 are not.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def brute_force_holm_rejects(ps, alpha):
    """Holm (1979) as a closed test: reject i when Bonferroni rejects every intersection that holds i."""
    m = len(ps)
    subsets = [s for k in range(1, m + 1) for s in itertools.combinations(range(m), k)]
    return [all(min(ps[j] for j in s) <= alpha / len(s) for s in subsets if i in s) for i in range(m)]


@pytest.mark.parametrize("m", [1, 2, 3, 6])
def test_holm_agrees_with_the_closed_test_it_shortens(m):
    rng = np.random.default_rng(m)
    decided = set()
    for _ in range(60):
        ps = (rng.random(m) ** 4).tolist()
        got = [p <= 0.05 for p in holm(ps)]
        assert got == brute_force_holm_rejects(ps, 0.05)
        decided |= set(got)
    assert decided == {True, False}  # the trial says something about both


def test_holm_is_monotone_never_below_the_raw_p_and_at_most_one():
    rng = np.random.default_rng(0)
    for _ in range(200):
        ps = rng.random(rng.integers(1, 9))
        adjusted = np.array(holm(ps.tolist()))
        order = np.argsort(ps)
        assert (adjusted >= ps).all()
        assert (adjusted <= 1).all()
        assert (np.diff(adjusted[order]) >= 0).all()


def test_holm_of_nothing_and_of_one():
    assert holm([]) == []
    assert holm([0.03]) == [0.03]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_interval_excludes_zero_exactly_when_holm_rejects(n):
    rng = np.random.default_rng(n)
    seen = set()
    for _ in range(150):
        k = int(rng.integers(2, 8))
        effects = rng.choice([0.0, 1.0, -2.0, 8.0, 40.0], size=(k, 1))
        got = contrasts(as_cells(rng.normal(0, 1, (k, n)) + effects), "base")
        for c in got.values():
            excludes = c.low > 0 or c.high < 0
            assert excludes == (c.p_holm <= 0.05) == (c.verdict in ("better", "worse"))
            seen.add(c.verdict)
    assert seen == VERDICTS


def test_contrast_numbers_are_those_of_the_paired_test():
    rng = np.random.default_rng(4)
    values = rng.normal(0, 1, (2, 6)) + np.array([[0.0], [0.7]])
    (got,) = contrasts(as_cells(values), "base").values()
    test = stats.ttest_rel(values[1], values[0])
    interval = test.confidence_interval(0.95)
    assert got.p == got.p_holm == pytest.approx(test.pvalue)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert got.difference == pytest.approx((values[1] - values[0]).mean())
    assert got.correlation == pytest.approx(stats.pearsonr(values[1], values[0]).statistic)
    assert got.n == 6


@pytest.mark.long
def test_no_effect_gives_a_false_verdict_in_at_most_6_of_100_studies():
    rng = np.random.default_rng(11)
    studies = rng.normal(50, 2, (700, 7, 3))
    wrong = sum(
        any(c.verdict in ("better", "worse") for c in contrasts(as_cells(study), "base").values()) for study in studies
    )
    assert wrong / len(studies) <= 0.06
    assert wrong > 0  # a test that never decides anything would pass the line above


@pytest.mark.parametrize(("lower", "verdict"), [(True, "better"), (False, "worse")])
def test_the_direction_of_the_metric_decides_what_is_better(lower, verdict):
    cells = as_cells(np.array([[10.0, 11.0, 12.0], [5.0, 6.1, 7.0]]))
    assert contrasts(cells, "base", lower_is_better=lower)["c1"].verdict == verdict


def study_with_effects(seed=3):
    rng = np.random.default_rng(seed)
    return rng.normal(20, 0.5, (5, 4)) + np.array([[0.0], [-9.0], [9.0], [0.1], [-0.3]])


def test_verdicts_do_not_depend_on_the_order_of_the_cells():
    cells = as_cells(study_with_effects())
    expected = contrasts(cells, "base")
    assert {c.verdict for c in expected.values()} == VERDICTS
    for order in itertools.permutations(cells):
        assert contrasts({name: cells[name] for name in order}, "base") == expected


def test_verdicts_do_not_depend_on_a_shift_that_a_seed_gives_all_cells():
    values = study_with_effects()
    expected = contrasts(as_cells(values), "base")
    shifted = contrasts(as_cells(values + np.array([[100.0, -30.0, 7.0, 0.25]])), "base")
    assert {c.verdict for c in expected.values()} == VERDICTS
    for name, c in expected.items():
        assert shifted[name].verdict == c.verdict
        assert shifted[name].p == pytest.approx(c.p, rel=1e-6)
        assert (shifted[name].low, shifted[name].high) == pytest.approx((c.low, c.high), rel=1e-6)


def test_one_seed_gives_a_difference_and_neither_interval_nor_verdict():
    got = contrasts({"base": {0: 3.0}, "c1": {0: 1.0}, "c2": {0: 9.0}}, "base")
    for c, difference in zip(got.values(), (-2.0, 6.0), strict=True):
        assert (c.difference, c.low, c.high, c.p, c.p_holm, c.n) == (difference, None, None, None, None, 1)
        assert c.verdict == "single seed"


def test_unequal_seeds_are_paired_on_the_common_ones():
    base = {0: 10.0, 1: 12.0, 2: 11.0, 5: 1000.0}
    cell = {7: -1000.0, 2: 10.4, 1: 11.1, 0: 9.2}
    got = contrasts({"base": base, "c1": cell}, "base")["c1"]
    test = stats.ttest_rel([9.2, 11.1, 10.4], [10.0, 12.0, 11.0])
    assert got.n == 3
    assert got.p == pytest.approx(test.pvalue)
    assert got.difference == pytest.approx(np.mean([-0.8, -0.9, -0.6]))


def test_no_common_seed_gives_no_difference():
    got = contrasts({"base": {0: 1.0, 1: 2.0}, "c1": {2: 1.0, 3: 2.0}}, "base")["c1"]
    assert math.isnan(got.difference)
    assert (got.p, got.p_holm, got.n, got.verdict) == (None, None, 0, "no common seed")


def test_a_contrast_without_a_p_does_not_count_in_the_family():
    full = {"base": {0: 1.0, 1: 2.0, 2: 3.5}, "c1": {0: 0.1, 1: 1.4, 2: 2.4}}
    with_single = {**full, "c2": {0: 5.0}}
    assert contrasts(with_single, "base")["c1"] == contrasts(full, "base")["c1"]


CLEARLY_LOWER = {"base": {0: 10.0, 1: 11.0, 2: 12.0}, "c1": {0: 5.0, 1: 6.1, 2: 7.0}}
CLEARLY_HIGHER = {"base": CLEARLY_LOWER["c1"], "c1": CLEARLY_LOWER["base"]}


def test_a_cell_with_a_diverged_seed_is_never_called_better():
    broken = frozenset({"c1"})
    assert contrasts(CLEARLY_LOWER, "base")["c1"].verdict == "better"
    assert contrasts(CLEARLY_LOWER, "base", never_better=broken)["c1"].verdict == "inconclusive"
    assert contrasts(CLEARLY_HIGHER, "base", never_better=broken)["c1"].verdict == "worse"


def test_a_baseline_with_a_diverged_seed_is_not_called_better_by_way_of_the_others():
    """To say "c1 is worse than base" is to say that base is better, on the seeds that base survived."""
    got = contrasts(CLEARLY_HIGHER, "base", never_better=frozenset({"base"}))["c1"]
    assert got.verdict == "inconclusive"


def test_swapping_cell_and_baseline_turns_the_verdict_around():
    for cells in (CLEARLY_LOWER, CLEARLY_HIGHER):
        there, back = contrasts(cells, "base")["c1"], contrasts(cells, "c1")["base"]
        assert {there.verdict, back.verdict} == {"better", "worse"}
        assert back.difference == pytest.approx(-there.difference)
        assert back.p == pytest.approx(there.p)


def test_the_same_numbers_may_tie_by_chance():
    values = {0: 0.85, 1: 0.9, 2: 0.8}
    got = contrasts({"base": values, "c1": dict(values)}, "base", margin=0.1)["c1"]
    assert (got.difference, got.p, got.p_holm, got.verdict) == (0.0, 1.0, 1.0, "inconclusive")
    assert (got.low, got.high, got.flat, got.anytime.verdict) == (None, None, True, "inconclusive")
    one = contrasts({"base": {0: 0.85}, "c1": {0: 0.85}}, "base")["c1"]
    assert (one.p, one.p_holm, one.verdict, one.anytime.verdict) == (None, None, "single seed", "single seed")
    unranked = contrasts({"base": values, "c1": dict(values)}, "base", lower_is_better=None)["c1"]
    assert unranked.verdict == "not ranked"


def test_one_seed_that_agrees_makes_no_identity():
    got = contrasts({"base": {0: 1.0, 1: 2.0}, "c1": {0: 1.0, 1: 2.5}}, "base")["c1"]
    assert got.verdict == "inconclusive"


def test_one_result_does_not_count_in_the_family_and_a_tie_does():
    """A choice that can't change a metric, as sigma the distances of another sampler, costs the others nothing."""
    values = (1.0, 2.0, 3.5)
    family = {"c1": Pairs((0, 1, 2), (0.1, 1.4, 2.4), values), "tie": Pairs((0, 1, 2), values, values)}
    alone, same, tied = judge({"c1": family["c1"]}), judge(family, same={"tie"}), judge(family)
    assert same["c1"] == alone["c1"]
    assert {same["tie"].verdict, same["tie"].anytime.verdict} == {"one result"}
    assert (same["tie"].p_holm, same["tie"].low) == (None, 0.0)
    assert tied["c1"].p_holm == 2 * alone["c1"].p_holm
    assert tied["c1"].anytime.needed == 2 * alone["c1"].anytime.needed


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [2.0]])
def test_no_correlation_where_there_is_none_to_speak_of(values):
    base = {i: float(i) for i in range(len(values))}
    assert contrasts({"base": base, "c1": dict(enumerate(values))}, "base")["c1"].correlation is None


def cancelling(seed, shift):
    """Two cells whose differences cancel but for what rounding leaves of their mean."""
    values = np.random.default_rng(seed).integers(0, 400, (2, 3)) / 400 + shift
    cell = [values[0, 0], values[0, 1], values[1, 0], values[1, 1]]
    base = [values[0, 1], values[0, 0], values[1, 2], values[1, 0] + values[1, 1] - values[1, 2]]
    return dict(enumerate(cell)), dict(enumerate(base))


@pytest.mark.parametrize("shift", [0.0, 5.0, 3000.0])
def test_a_mean_difference_that_rounding_left_is_zero(shift):
    residues = 0
    for seed in range(40):
        cell, base = cancelling(seed, shift)
        d = [cell[s] - base[s] for s in cell]
        residues += sum(d) != 0
        found = contrasts({"base": base, "c": cell}, "base")["c"]
        assert (found.difference, found.low) == (0.0, -found.high)
        assert found.anytime.low is None or found.anytime.low == -found.anytime.high
        assert found.verdict in ("inconclusive", "identical")
    assert residues > 10, "nothing was left to clear"


def test_a_difference_above_rounding_stays_what_it_is():
    found = contrasts({"base": {0: 0.5, 1: 0.25}, "c": {0: 0.5 + 1e-12, 1: 0.25 + 3e-12}}, "base")["c"]
    assert found.difference == pytest.approx(2e-12, rel=1e-3)


def test_an_end_of_an_interval_that_rounding_left_is_zero():
    mean, half = 0.3, t_interval([0.1, 0.5]).high - 0.3
    # Both ends are computed from the mean: the lower one of values that are drawn together until it is next to zero.
    near = [mean - 0.2 * mean / half, mean + 0.2 * mean / half]
    assert abs(t_interval(near).low) < 1e-15
    assert t_interval(near, rounding=1e-15).low == 0.0
