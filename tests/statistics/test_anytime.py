"""The anytime-valid t test: its closed form against integrals, its sequence by inversion, its promise by simulation."""

from __future__ import annotations

import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from ddpmkit.statistics import ALPHA, Contrast, Pairs, confidence_sequence, contrasts, e_value, judge, seeds_needed
from ddpmkit.statistics.anytime import half_width, log_e

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "anytime.py"


def some(n: int, mean: float = 0.7, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).normal(mean, 1.0, n).tolist()


@pytest.mark.parametrize("n", [2, 3, 6, 15])
@pytest.mark.parametrize("g", [0.3, 1.0, 4.0])
def test_the_e_value_is_the_mixture_over_the_effect_size_of_noncentral_t(n, g):
    # A t statistic is what is left of the differences once their scale is gone, which is what the Haar measure does.
    d = some(n)
    t = stats.ttest_1samp(d, 0.0).statistic

    def mixed(effect: float) -> float:
        return float(stats.nct.pdf(t, n - 1, effect * math.sqrt(n)) * stats.norm.pdf(effect, 0, math.sqrt(g)))

    against = integrate.quad(mixed, -12 * math.sqrt(g), 12 * math.sqrt(g), limit=400, points=[0.0, t / math.sqrt(n)])[0]
    assert e_value(d, g=g) == pytest.approx(against / stats.t.pdf(t, n - 1), rel=1e-6)


@pytest.mark.parametrize("n", [2, 5, 12])
def test_without_a_difference_its_mean_is_one(n):
    def weighed(t: float) -> float:
        return math.exp(float(log_e(np.array(t), n))) * float(stats.t.pdf(t, n - 1))

    assert 2 * integrate.quad(weighed, 0, np.inf, limit=400)[0] == pytest.approx(1.0, rel=1e-6)


def test_the_worked_example_of_the_documentation():
    # Eight differences of mean 1 and sd 1: t^2 = 8, u = 8 / 7, e = 9^(-1/2) [(15 / 7) / (1 + 8 / 63)]^4.
    d = np.array([1.0, -1.0] * 4)
    d = 1.0 + d / d.std(ddof=1)
    assert e_value(d.tolist()) == pytest.approx((15 / 7 / (71 / 63)) ** 4 / 3)
    assert e_value(d.tolist()) == pytest.approx(4.357, abs=0.001)


def test_order_and_unit_change_nothing():
    d = some(9)
    assert e_value(d[::-1]) == pytest.approx(e_value(d), rel=1e-12)
    assert e_value([-1000 * x for x in d]) == pytest.approx(e_value(d), rel=1e-12)


@pytest.mark.parametrize("n", [6, 7, 20])
@pytest.mark.parametrize("g", [0.5, 1.0, 3.0])
def test_the_sequence_ends_where_the_e_value_reaches_its_bound(n, g):
    d = np.array(some(n))
    found = confidence_sequence(d.tolist(), 0.05, g=g)
    assert found is not None
    for end in found:
        assert e_value((d - end).tolist(), g=g) == pytest.approx(20.0, rel=1e-9)
    assert e_value((d - sum(found) / 2).tolist(), g=g) < 20


def test_the_sequence_excludes_zero_exactly_when_the_e_value_settles():
    said = set()
    for seed in range(300):
        d = some(9, mean=1.0, seed=seed)
        low, high = confidence_sequence(d, 1 / 40)
        said.add((low > 0 or high < 0, e_value(d) >= 40))
    assert said == {(True, True), (False, False)}


def test_a_few_seeds_have_the_whole_line():
    assert [half_width(n, 1 / 40) < math.inf for n in (2, 3, 4, 5, 6, 7)] == [False] * 4 + [True] * 2
    assert confidence_sequence(some(5), 1 / 40) is None
    # as no t statistic of five seeds is far enough out
    assert float(log_e(np.array(1e9), 5)) < math.log(40) < float(log_e(np.array(1e9), 6))


@pytest.mark.parametrize("d", [[], [0.4]])
def test_nothing_below_two_pairs(d):
    assert e_value(d) is None
    assert confidence_sequence(d, 0.05) is None


def test_without_spread_there_is_no_sequence_and_no_more_than_the_sign_flip_test_would_say():
    assert e_value([0.5] * 6) == pytest.approx(2**5)
    assert e_value([0.5] * 2) == pytest.approx(math.sqrt(3))
    assert confidence_sequence([0.5] * 12, 0.05) is None
    assert e_value([0.0] * 4) == pytest.approx(1 / math.sqrt(5))


def test_a_huge_e_value_is_a_number():
    assert math.isfinite(e_value([1.0 + 1e-7 * (i % 2) for i in range(400)]))


@pytest.mark.parametrize("g", [0.0, -1.0, math.inf, math.nan])
def test_a_variance_is_positive(g):
    with pytest.raises(ValueError, match="positive"):
        e_value([1.0, 2.0], g=g)
    with pytest.raises(ValueError, match="positive"):
        confidence_sequence([1.0, 2.0], 0.05, g=g)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_level_is_between_0_and_1(level):
    with pytest.raises(ValueError, match="level"):
        confidence_sequence([1.0, 2.0], level)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def pairs(d: list[float], whole: bool = True) -> Pairs:
    return Pairs(tuple(range(len(d))), tuple(10 + x for x in d), (10.0,) * len(d), whole)


def told(family: dict[str, Pairs], **more) -> dict[str, Contrast]:
    return judge(family, grown=True, **more)


def test_a_grown_study_has_the_verdict_of_the_e_value_and_keeps_the_fixed_p():
    d = [1.9, 2.4, 2.1, 2.8]
    fixed, grown = judge({"a": pairs(d)})["a"], told({"a": pairs(d)})["a"]
    assert (fixed.verdict, grown.verdict) == ("worse", "inconclusive")
    assert fixed.p_holm == grown.p_holm < 0.05
    assert fixed.anytime is not None
    assert replace(fixed.anytime, stands=True) == grown.anytime
    assert grown.anytime.verdict == "inconclusive"
    assert grown.anytime.e == pytest.approx(e_value(d))


def test_the_bar_is_the_number_of_contrasts_over_alpha():
    family = {"a": pairs(some(12, 1.5)), "b": pairs(some(12, 0.1, 1)), "same": pairs([0.0] * 12), "one": pairs([0.3])}
    out = told(family, same={"same"})
    # as in Holm's family, what is one result or of one seed does not count
    assert {c.anytime.needed for c in out.values()} == {2 / ALPHA}
    assert [c.verdict for c in out.values()] == ["worse", "inconclusive", "one result", "single seed"]
    copied = judge({**family, "again": family["a"]}, copies={"again": "a"}, same={"same"}, grown=True)
    assert copied["again"].anytime == copied["a"].anytime
    assert copied["a"].anytime.needed == 2 / ALPHA


def test_no_gap_when_the_sequence_lies_within_the_margin():
    d = some(20, 0.0, 4)
    low, high = confidence_sequence(d, 0.05)
    edge = max(-low, high)
    assert told({"a": pairs(d)}, margin=edge * 1.001)["a"].verdict.startswith("no gap larger than")
    assert told({"a": pairs(d)}, margin=edge * 0.999)["a"].verdict == "inconclusive"
    assert told({"a": pairs(d)})["a"].verdict == "inconclusive"
    # a cell that lost a seed is not called equal
    assert told({"a": pairs(d, whole=False)}, margin=edge * 1.001)["a"].verdict == "inconclusive"


def test_a_cell_that_lost_a_seed_is_not_called_better():
    d = some(15, -2.0)
    assert told({"a": pairs(d)})["a"].verdict == "better"
    assert told({"a": pairs(d, whole=False)})["a"].verdict == "inconclusive"
    assert told({"a": pairs([-x for x in d], whole=False)})["a"].verdict == "worse"


def test_what_ranks_nothing_has_no_e_value():
    assert judge({"a": pairs(some(9))}, None)["a"].anytime is None
    cells = {"base": {0: 1.0}, "a": {1: 2.0}}
    assert contrasts(cells, "base")["a"].anytime is None  # no common seed


# --- the promise, by simulation ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulation():
    return runpy.run_path(str(BENCHMARK))


@pytest.mark.long
def test_the_simulation_judges_as_the_report_does(simulation):
    d = simulation["differences"]((0.5, 0.2), 0.4, 60, seed=5)
    words = {"worse": 1.0, "better": -1.0, "inconclusive": 0.0}
    for n in (3, 8, 14, 20):
        vectorised = simulation["by_e_value"](d, n, 1.2)
        for row, of_study in zip(vectorised, d, strict=True):
            out = told({str(i): pairs(x[:n].tolist()) for i, x in enumerate(of_study)}, margin=1.2)
            assert [words.get(c.verdict, 2.0) for c in out.values()] == row.tolist()


@pytest.mark.long
def test_verdicts_of_a_growing_study_are_false_in_at_most_6_of_100(simulation):
    for row, law in enumerate(simulation["LAWS"].values()):
        for gap in (0.0, 1.0, 2.0):
            d = simulation["differences"](law, gap, 2000, seed=row)
            for margin in (None, 1.0):
                assert simulation["grow"](d, gap, margin).false <= 0.06, (law, gap, margin)


@pytest.mark.long
def test_the_t_test_of_a_fixed_number_would_not_hold_it(simulation):
    d = simulation["differences"](None, 0.0, 2000, seed=0)
    assert simulation["grow"](d, 0.0, None, simulation["by_t_test"], fewest=3).false > 0.15


@pytest.mark.long
def test_until_settled_costs_little_at_1_sd_and_saves_at_2(simulation):
    fixed = seeds_needed(1.0, 1.0, level=ALPHA / 2)
    assert fixed == 13
    one, two = (simulation["grow"](simulation["differences"](None, gap, 2000, 1), gap, None) for gap in (1.0, 2.0))
    assert one.cell <= 1.2 * fixed
    assert one.right >= 0.77  # of 20 seeds
    assert two.cell <= 0.65 * fixed
    assert two.right >= 0.99
