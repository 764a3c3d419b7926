"""Every statistic against numbers that others published, SciPy, or a loop that lists all cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from ddpmkit.statistics import (
    Pairs,
    components,
    contrasts,
    correlation,
    equivalence_p,
    judge,
    paired_p,
    seeds_for_margin,
    seeds_needed,
    sign_flip_floor,
    sign_flip_p,
    smallest_visible,
    t_interval,
)
from ddpmkit.statistics.anytime import log_e

# Student (1908), "The probable error of a mean", Biometrika 6:1-25: extra hours of sleep under two drugs.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

# Darwin's crossed and self-fertilised maize, differences in eighths of an inch; Fisher (1935), The Design of
# Experiments, sections 17 and 21: t = 2.148 with 14 degrees of freedom; 863 of 2^15 sign patterns reach the sum 314.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]

# Montgomery, Design and Analysis of Experiments, example 14.1: coded purity by supplier, batch and repeat.
# Published: MS(batches within suppliers) = 7.77, MS(error) = 2.64, variances 1.71 and 2.64.
PURITY = [
    {0: [1, -1, 0], 1: [-2, -3, -4], 2: [-2, 0, 1], 3: [1, 4, 0]},
    {0: [1, -2, -3], 1: [0, 4, 2], 2: [-1, 0, -2], 3: [0, 3, 2]},
    {0: [2, 4, 0], 1: [-2, 0, 2], 2: [1, -1, 2], 3: [3, 2, 1]},
]


def test_students_own_example():
    """As R prints it for its data set "sleep": t = -4.0621, p = 0.002833, interval -2.4598858 -0.7001142."""
    pairs = {"base": dict(enumerate(DRUG_2)), "drug": dict(enumerate(DRUG_1))}
    got = contrasts(pairs, "base")["drug"]
    assert got.p == pytest.approx(0.002833, abs=5e-7)
    assert (got.low, got.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert got.difference == pytest.approx(-1.58)


def test_fishers_own_example():
    assert paired_p(DARWIN) == pytest.approx(0.0497, abs=5e-5)
    assert sign_flip_p(DARWIN) == 2 * 863 / 2**15


@pytest.mark.parametrize("n", [2, 3, 5, 8, 11])
@pytest.mark.parametrize("shift", [0.0, 0.7, 5.0])
def test_sign_flips_are_those_of_a_loop_over_all_patterns(n, shift):
    d = np.random.default_rng(n).normal(shift, 1, n).round(1)  # rounded, so that there are ties
    sums = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product((1, -1), repeat=n)]
    expected = np.mean([s >= abs(d.sum()) - 1e-9 for s in sums])
    assert sign_flip_p(d.tolist()) == expected


def test_sign_flips_are_scipys():
    d = np.random.default_rng(3).normal(0.6, 1, 12)
    test = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(d.tolist()) == pytest.approx(test.pvalue, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_the_floor_of_the_sign_flips_is_reached_when_all_signs_agree(n):
    d = np.random.default_rng(n).uniform(1, 2, n).tolist()
    assert sign_flip_p(d) == sign_flip_floor(n) == 2 * 0.5**n


@pytest.mark.parametrize("n", [0, 1, 41])
def test_no_sign_flips_without_pairs_or_with_too_many_to_count(n):
    assert sign_flip_p([0.3] * n) is None
    assert sign_flip_floor(n) is None


def test_sign_flips_of_nothing_and_of_rounding_errors():
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0
    assert sign_flip_p([0.1 + 0.2, -0.3, 0.0]) == 1.0  # 5.6e-17 is no effect


@pytest.mark.parametrize("margin", [0.2, 0.5, 1.0])
def test_equivalence_is_two_one_sided_tests_of_scipy(margin):
    d = np.random.default_rng(8).normal(0.1, 0.3, 6)
    upper = stats.ttest_1samp(d, margin, alternative="less").pvalue
    lower = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    assert equivalence_p(d.tolist(), margin) == pytest.approx(max(upper, lower), rel=1e-9)
    assert equivalence_p((-d).tolist(), margin) == pytest.approx(max(upper, lower), rel=1e-9)


def test_equivalence_without_spread_and_without_pairs():
    assert equivalence_p([0.1, 0.1], 0.2) is None
    assert equivalence_p([0.3, 0.3], 0.2) is None
    assert equivalence_p([0.1], 0.2) is None


@pytest.mark.parametrize("margin", [0.0, -1.0, math.inf, math.nan])
def test_a_margin_is_positive(margin):
    with pytest.raises(ValueError, match="positive"):
        equivalence_p([0.1, 0.2], margin)


def test_correlation_is_scipys():
    a, b = np.random.default_rng(1).normal(size=(2, 7))
    assert correlation(a.tolist(), b.tolist()) == pytest.approx(stats.pearsonr(a, b).statistic)
    assert correlation([1.0, 2.0], [1.0, 2.0]) is None
    assert correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert correlation([0.1 + 0.2, 0.3, 0.3], [1.0, 2.0, 3.0]) is None


def test_variances_of_the_textbooks_nested_design():
    got = components(PURITY)
    assert got.train == pytest.approx(1.71, abs=0.005)
    assert got.sample == pytest.approx(2.64, abs=0.005)
    assert (got.train_df, got.sample_df, got.repeats) == (9, 24, 3.0)
    assert got.of_mean() == pytest.approx(7.77 / 3, abs=0.005)  # MS(batches) / repeats
    assert got.of_mean(1) == pytest.approx(1.71 + 2.64, abs=0.01)


def test_evaluation_noise_is_taken_out_of_the_part_that_holds_it():
    got = components(PURITY, 1.0)
    assert got.sample == pytest.approx(1.64, abs=0.005)
    assert got.evaluation == 1.0
    assert got.of_mean() == pytest.approx(7.77 / 3, abs=0.005)  # the same scatter, told apart further
    single = components([{0: [1.0], 1: [3.0], 2: [5.0]}], 1.0)
    assert (single.train, single.sample) == (3.0, None)  # 4 observed, 1 of it is measuring


def test_components_recover_what_made_the_numbers_also_with_unequal_repeats():
    rng = np.random.default_rng(5)
    cells = []
    for _ in range(400):
        cell = {}
        for seed in range(5):
            trained = rng.normal(10, 2.0)
            cell[seed] = rng.normal(trained, 1.0, 2 + seed % 3).tolist()
        cells.append(cell)
    got = components(cells)
    assert got.train == pytest.approx(4.0, rel=0.1)
    assert got.sample == pytest.approx(1.0, rel=0.1)


def test_no_components_of_one_train_seed_and_none_below_zero():
    assert components([{0: [1.0, 2.0]}]) is None
    assert components([]) is None
    assert components([{0: [1.0, 9.0], 1: [1.0, 9.0]}]).train == 0.0


@pytest.mark.parametrize(("seeds", "gaps"), [(3, (6.0, 4.2, 2.7)), (5, (3.1, 2.2, 1.4)), (10, (1.8, 1.3, 0.8))])
def test_smallest_visible_gap_in_percent_for_a_spread_of_1_3_percent(seeds, gaps):
    """The planning table of the statistics reference: 80 % power, correlation 0, 0.5 and 0.8."""
    got = [smallest_visible(seeds, 1.3, correlation=rho) for rho in (0.0, 0.5, 0.8)]
    assert [round(g, 1) for g in got] == list(gaps)


def test_power_of_the_g_power_manuals_paired_example():
    """G*Power 3.1 manual, difference between two dependent means: dz = 0.421637, n = 50, power 0.832114."""
    sd = 1 / math.sqrt(2)  # so that the differences have a spread of 1
    assert smallest_visible(50, sd, power=0.832114) == pytest.approx(0.421637, abs=2e-6)


def power_by_integral(gap, n, level):
    """P(|T| > t) for a spread of 1, integrated over the law of the estimated spread: no noncentral t."""
    critical, shift = stats.t.ppf(1 - level / 2, n - 1), gap * math.sqrt(n)

    def given(s2):
        z = critical * math.sqrt(s2 / (n - 1))
        return (stats.norm.sf(z - shift) + stats.norm.cdf(-z - shift)) * stats.chi2.pdf(s2, n - 1)

    return integrate.quad(given, 0, np.inf, limit=200)[0]


@pytest.mark.parametrize("n", [3, 4, 5, 10])
@pytest.mark.parametrize(("contrasts_", "power"), [(1, 0.8), (6, 0.8), (1, 0.5), (6, 0.95)])
def test_the_smallest_visible_gap_has_that_power(n, contrasts_, power):
    gap = smallest_visible(n, 1 / math.sqrt(2), contrasts=contrasts_, power=power)
    assert power_by_integral(gap, n, 0.05 / contrasts_) == pytest.approx(power, abs=1e-4)


@pytest.mark.long
def test_smallest_visible_in_a_simulation_through_the_verdicts():
    rng = np.random.default_rng(17)
    gap = smallest_visible(4, 1.0, correlation=0.5)
    shared = rng.normal(0, math.sqrt(0.5), (3000, 4))
    a, b = (shared + rng.normal(0, math.sqrt(0.5), (3000, 4)) for _ in range(2))
    found = [
        judge({0: Pairs(tuple(range(4)), tuple(x - gap), tuple(y))})[0].verdict == "better"
        for x, y in zip(a, b, strict=True)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 3000))


def test_one_seed_shows_nothing():
    assert smallest_visible(1, 1.0) is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 1.0), {}),
        ((3, -1.0), {}),
        ((3, math.nan), {}),
        ((3, 1.0), {"correlation": 1.1}),
        ((3, 1.0), {"contrasts": 0}),
        ((3, 1.0), {"power": 0.3}),
        ((3, 1.0), {"power": 1.0}),
        ((3, 1.0), {"alpha": 0.0}),
    ],
)
def test_plans_that_make_no_sense_are_refused(arguments, named):
    with pytest.raises(ValueError, match="at least"):
        smallest_visible(*arguments, **named)


@pytest.mark.parametrize("gap", [0.5, 1.0, 3.0])
def test_the_seeds_needed_are_the_fewest_that_have_the_power(gap):
    n = seeds_needed(gap, 1.0)
    assert power_by_integral(gap, n, 0.05) >= 0.8 - 1e-6
    assert power_by_integral(gap, n - 1, 0.05) < 0.8
    assert seeds_needed(-gap, 1.0) == n


def test_a_gap_of_nothing_needs_more_seeds_than_there_are():
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.01, 1.0) is None
    assert seeds_for_margin(0.01, 1.0) is None


@pytest.mark.long
def test_the_seeds_for_a_margin_show_two_equal_cells_to_be_equal():
    n = seeds_for_margin(1.0, 1.0)
    rng = np.random.default_rng(2)
    shown = np.mean([equivalence_p(d, 1.0) <= 0.05 for d in rng.normal(0, 1, (3000, n))])
    fewer = np.mean([equivalence_p(d, 1.0) <= 0.05 for d in rng.normal(0, 1, (3000, n - 2))])
    assert shown >= 0.8 - 4 * math.sqrt(0.16 / 3000)
    assert fewer < 0.8


@pytest.mark.long
def test_the_interval_that_decides_on_equivalence_lies_within_the_margin_exactly_then():
    rng = np.random.default_rng(9)
    seen = set()
    for _ in range(300):
        k = int(rng.integers(1, 6))
        scale = rng.choice([0.02, 0.1, 0.5])
        family = {
            i: Pairs(tuple(range(5)), tuple(rng.normal(rng.choice([0, 0.4]), scale, 5)), (0.0,) * 5) for i in range(k)
        }
        for c in judge(family, margin=0.5).values():
            inside = -0.5 < c.equivalence_low and c.equivalence_high < 0.5
            assert inside == (c.p_equivalence_holm <= 0.05)
            excludes = c.low > 0 or c.high < 0
            assert excludes == (c.verdict in ("better", "worse"))
            assert (c.verdict == "no gap larger than 0.5") == (inside and not excludes)
            seen.add(c.verdict)
    assert seen == {"better", "worse", "inconclusive", "no gap larger than 0.5"}


@pytest.mark.parametrize("side", ["cell", "base"])
def test_no_equality_is_claimed_on_the_seeds_that_survived(side):
    pairs = Pairs((0, 1, 2), (0.01, -0.01, 0.02), (0.0, 0.01, 0.0))
    assert judge({0: pairs}, margin=1.0)[0].verdict == "no gap larger than 1"
    hurt = Pairs(pairs.seeds, pairs.cell, pairs.base, side != "cell", side != "base")
    assert judge({0: hurt}, margin=1.0)[0].verdict == "inconclusive"


@pytest.mark.long
def test_false_equalities_stay_below_alpha_when_every_gap_is_the_margin():
    rng = np.random.default_rng(21)
    wrong = 0
    for study in rng.normal(1.0, 0.3, (500, 6, 4)):  # six cells, each worse by just the margin
        family = {i: Pairs((0, 1, 2, 3), tuple(d), (0.0,) * 4) for i, d in enumerate(study)}
        wrong += any(c.p_equivalence_holm <= 0.05 for c in judge(family, margin=1.0).values())
    assert 0 < wrong / 500 <= 0.06


def test_a_metric_that_ranks_nothing_gets_no_test():
    got = judge({0: Pairs((0, 1, 2), (0.1, 0.2, 0.3), (5.1, 5.2, 5.4))}, None, margin=9.0)[0]
    assert got.verdict == "not ranked"
    assert (got.p, got.p_holm, got.p_sign_flip, got.p_equivalence) == (None, None, None, None)
    assert got.difference == pytest.approx(-5.0333333)


def test_the_level_of_the_interval_is_holms():
    """Two contrasts: the clearer one is decided at 0.025, the other at 0.05."""
    family = {
        "clear": Pairs((0, 1, 2), (9.0, 9.1, 9.2), (0.0, 0.0, 0.1)),
        "open": Pairs((0, 1, 2), (0.5, -0.7, 0.1), (0.0, 0.0, 0.1)),
    }
    got = judge(family)
    assert {k: c.level for k, c in got.items()} == {"clear": 0.025, "open": 0.05}
    for key, c in got.items():
        assert (c.low, c.high) == pytest.approx(
            stats.ttest_1samp(family[key].differences, 0).confidence_interval(1 - c.level)
        )
    assert t_interval(family["open"].differences).low == got["open"].low


@pytest.mark.parametrize("value", [0.1, 0.7, 1234.567])
def test_numbers_that_are_all_the_same_scatter_by_nothing(value):
    cells = [{0: [value] * 3, 1: [value] * 3, 2: [value] * 7}] * 2
    found = components(cells)
    assert (found.train, found.sample) == (0.0, 0.0)


@pytest.mark.parametrize(("n", "contrasts_"), [(6, 2), (8, 1), (12, 5)])
def test_the_smallest_gap_of_a_study_that_grows_is_settled_by_its_e_value_in_80_of_100(n, contrasts_):
    gap = smallest_visible(n, 1 / math.sqrt(2), contrasts=contrasts_, anytime=True)
    d = np.random.default_rng(n).normal(gap, 1.0, (4000, n))
    t = math.sqrt(n) * d.mean(1) / d.std(1, ddof=1)
    settled = np.exp(log_e(t, n)) >= contrasts_ / 0.05
    assert settled.mean() == pytest.approx(0.8, abs=0.02)
    assert gap > smallest_visible(n, 1 / math.sqrt(2), contrasts=contrasts_)


def test_too_few_seeds_of_a_study_that_grows_show_no_gap():
    assert smallest_visible(5, 1.0, contrasts=2, anytime=True) is None
    assert smallest_visible(6, 1.0, contrasts=2, anytime=True) is not None
