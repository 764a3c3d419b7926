"""The statistics against statsmodels: Holm, equivalence, power, variance components, effects of a factorial design.

Opt-in: ``pip install ".[oracles]"``, then ``pytest tests/oracles``.
"""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.formula.api import ols
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from ddpmkit.statistics import (
    components,
    contrasts,
    effects,
    equivalence_p,
    holm,
    interactions,
    seeds_needed,
    smallest_visible,
    t_interval,
)

pytestmark = pytest.mark.oracles


@pytest.mark.parametrize("m", [1, 2, 6, 25])
def test_holm(m):
    for seed in range(20):
        ps = np.random.default_rng(seed).random(m) ** 3
        rejected, adjusted, _, _ = multipletests(ps, 0.05, method="holm")
        assert holm(ps.tolist()) == pytest.approx(adjusted)
        assert [p <= 0.05 for p in holm(ps.tolist())] == rejected.tolist()


@pytest.mark.parametrize("n", [3, 5, 9])
def test_intervals_and_paired_tests(n):
    a, b = np.random.default_rng(n).normal(5, 1, (2, n))
    stats = DescrStatsW(a - b)
    got = contrasts({"a": dict(enumerate(a)), "b": dict(enumerate(b))}, "b")["a"]
    assert got.p == pytest.approx(stats.ttest_mean(0.0)[1])
    assert (got.low, got.high) == pytest.approx(stats.tconfint_mean(0.05))
    interval = t_interval(a.tolist(), 0.9)
    assert (interval.low, interval.high) == pytest.approx(DescrStatsW(a).tconfint_mean(0.1))


@pytest.mark.parametrize("margin", [0.3, 0.8, 2.0])
def test_equivalence(margin):
    a, b = np.random.default_rng(4).normal(5, 0.5, (2, 6))
    assert equivalence_p((a - b).tolist(), margin) == pytest.approx(ttost_paired(a, b, -margin, margin)[0])


@pytest.mark.parametrize("n", [3, 5, 10, 40])
@pytest.mark.parametrize("contrasts_", [1, 6])
def test_the_smallest_visible_gap(n, contrasts_):
    gap = smallest_visible(n, 1 / np.sqrt(2), contrasts=contrasts_)  # differences with a spread of 1
    # One side: statsmodels adds the far tail, which is NaN in SciPy where it is nothing.
    power = TTestPower().power(gap, n, 0.05 / contrasts_ / 2, alternative="larger")
    assert power == pytest.approx(0.8, abs=1e-5)


@pytest.mark.parametrize("gap", [0.4, 0.9, 1.5])
def test_the_seeds_needed(gap):
    n = TTestPower().solve_power(gap, None, 0.025, 0.8, alternative="larger")
    assert seeds_needed(gap, 1.0) == int(np.ceil(n))


def test_variance_components_of_a_balanced_design_are_those_of_reml():
    rng = np.random.default_rng(6)
    cells = [
        {t: rng.normal(rng.normal(c, 2.0), 0.7, 4).tolist() for t in range(6)} for c in range(3)
    ]  # train sd 2, sample sd 0.7
    rows = [(c, f"{c}.{t}", v) for c, cell in enumerate(cells) for t, x in cell.items() for v in x]
    frame = pd.DataFrame(rows, columns=["cell", "train", "value"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its optimiser talks
        fit = MixedLM.from_formula("value ~ C(cell)", frame, groups="train").fit(reml=True)
    got = components(cells)
    assert got.train == pytest.approx(float(fit.cov_re.iloc[0, 0]), rel=1e-3)
    assert got.sample == pytest.approx(float(fit.scale), rel=1e-3)


def test_effects_and_interactions_of_two_by_two_are_those_of_least_squares_with_seeds_as_blocks():
    """The estimates agree; the tests differ on purpose, for here each effect has a spread over seeds of its own."""
    rng = np.random.default_rng(9)
    points = {f"{a}{b}": {"a": a, "b": b} for a, b in itertools.product("01", repeat=2)}
    values = {c: {s: float(rng.normal(10, 1)) for s in range(5)} for c in points}
    rows = [(*points[c].values(), s, v) for c, x in values.items() for s, v in x.items()]
    frame = pd.DataFrame(rows, columns=["a", "b", "seed", "value"])
    frame["x"] = (frame["a"] == "1") - 0.5
    frame["z"] = (frame["b"] == "1") - 0.5
    fit = ols("value ~ x * z + C(seed)", frame).fit()
    for m in effects(points, values, "00"):
        assert np.mean(m.pairs.differences) == pytest.approx(fit.params[{"a": "x", "b": "z"}[m.axes[0]]])
    (cross,) = interactions(points, values, "00")
    assert np.mean(cross.pairs.differences) == pytest.approx(fit.params["x:z"])


def test_an_effect_is_the_within_subject_analysis_of_variance():
    """With two levels F of the repeated-measures analysis is t squared, and the p-values are the same."""
    rng = np.random.default_rng(10)
    a, b = rng.normal(0, 1, (2, 6)) + np.array([[0.0], [0.8]])
    rows = [(s, c, v) for c, x in (("a", a), ("b", b)) for s, v in enumerate(x)]
    frame = pd.DataFrame(rows, columns=["seed", "cell", "value"])
    table = sm.stats.AnovaRM(frame, "value", "seed", within=["cell"]).fit().anova_table
    got = contrasts({"a": dict(enumerate(a)), "b": dict(enumerate(b))}, "a")["b"]
    assert got.p == pytest.approx(float(table["Pr > F"].iloc[0]))
