"""Effects of axes over matched cells and interactions, against loops and effects that were put in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from ddpmkit.statistics import Pairs, contrasts, effects, interactions, judge, words

SCHEDULES, SIGMAS = ("linear", "cosine", "sigmoid"), ("beta", "tilde")
POINTS = {f"{a} {b}": {"schedule": a, "sigma": b} for a, b in itertools.product(SCHEDULES, SIGMAS)}


def study(seed=0, seeds=4, gap=None, points=POINTS):
    rng = np.random.default_rng(seed)
    return {
        c: {s: float(rng.normal(10, 1)) + (gap(p) if gap else 0.0) for s in range(seeds)} for c, p in points.items()
    }


def test_an_effect_is_the_mean_over_matched_cells_paired_by_seed():
    values = study()
    found = {(m.axes[0], m.levels[0]): m for m in effects(POINTS, values, "linear beta")}
    assert list(found) == [("schedule", "cosine"), ("schedule", "sigmoid"), ("sigma", "tilde")]
    for (axis, level), m in found.items():
        by_seed = []
        for s in range(4):
            terms = []
            for other in SIGMAS if axis == "schedule" else SCHEDULES:
                at = f"{level} {other}" if axis == "schedule" else f"{other} {level}"
                base = f"linear {other}" if axis == "schedule" else f"{other} beta"
                terms.append(values[at][s] - values[base][s])
            by_seed.append(np.mean(terms))
        assert m.pairs.differences == pytest.approx(by_seed)
        assert len(m.cells) == (2 if axis == "schedule" else 3)
        test = stats.ttest_1samp(by_seed, 0)
        assert judge({0: m.pairs})[0].p == pytest.approx(test.pvalue)


def test_the_references_are_the_levels_of_the_cell_that_is_named():
    found = effects(POINTS, study(), "sigmoid tilde")
    assert {(m.levels[0], m.references[0]) for m in found} == {
        ("linear", "sigmoid"), ("cosine", "sigmoid"), ("beta", "tilde"),
    }  # fmt: skip


def test_an_interaction_is_the_difference_of_differences_by_seed():
    values = study(1)
    (first, second) = interactions(POINTS, values, "linear beta")
    assert (first.axes, first.levels, first.references) == (
        ("schedule", "sigma"), ("cosine", "tilde"), ("linear", "beta"),
    )  # fmt: skip
    assert second.levels == ("sigmoid", "tilde")
    by_seed = [
        (values["cosine tilde"][s] - values["linear tilde"][s]) - (values["cosine beta"][s] - values["linear beta"][s])
        for s in range(4)
    ]
    assert first.pairs.differences == pytest.approx(by_seed)


def test_effects_without_interaction_leave_only_noise_in_the_interaction():
    gap = {"linear": 0.0, "cosine": 3.0, "sigmoid": -2.0, "beta": 0.0, "tilde": 1.5}
    exact = {c: dict.fromkeys(range(3), gap[p["schedule"]] + gap[p["sigma"]]) for c, p in POINTS.items()}
    assert all(set(m.pairs.differences) == {0.0} for m in interactions(POINTS, exact, "linear beta"))
    assert [m.pairs.differences[0] for m in effects(POINTS, exact, "linear beta")] == [3.0, -2.0, 1.5]


def test_an_interaction_that_is_there_is_said_and_one_that_is_not_is_not():
    values = study(2, 5, lambda p: 20.0 * (p == POINTS["cosine tilde"]))
    found = interactions(POINTS, values, "linear beta")
    got = judge({m.levels: m.pairs for m in found}, ("interaction", "interaction"))
    assert {k: c.verdict for k, c in got.items()} == {
        ("cosine", "tilde"): "interaction", ("sigmoid", "tilde"): "inconclusive",
    }  # fmt: skip
    assert got["cosine", "tilde"].difference == pytest.approx(20, abs=3)


def test_interactions_of_three_axes_are_averaged_over_the_third():
    points = {" ".join(p): dict(zip("abc", p, strict=True)) for p in itertools.product("01", repeat=3)}
    values = study(4, 3, points=points)
    found = {m.axes: m for m in interactions(points, values, "0 0 0")}
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    v = {c: x[1] for c, x in values.items()}
    squares = [(v[f"1 {k} 1"] - v[f"0 {k} 1"]) - (v[f"1 {k} 0"] - v[f"0 {k} 0"]) for k in "01"]
    assert found["a", "c"].pairs.differences[1] == pytest.approx(np.mean(squares))
    assert len(found["a", "c"].cells) == 2


def test_one_axis_at_a_time_has_effects_and_no_interaction():
    points = {c: POINTS[c] for c in ("linear beta", "cosine beta", "sigmoid beta", "linear tilde")}
    values = study(points=points)
    assert interactions(points, values, "linear beta") == []
    found = effects(points, values, "linear beta")
    assert [m.cells for m in found] == [
        (("cosine beta", "linear beta"),), (("sigmoid beta", "linear beta"),), (("linear tilde", "linear beta"),),
    ]  # fmt: skip


def test_cells_without_numbers_and_other_meanings_are_left_out_and_counted():
    values = {**study(), "cosine tilde": {}}
    found = {m.levels[0]: m for m in effects(POINTS, values, "linear beta", broken=frozenset({"cosine tilde"}))}
    assert found["cosine"].cells == (("cosine beta", "linear beta"),)
    assert found["cosine"].left_out == (("cosine tilde", "linear tilde"),)
    assert not found["cosine"].pairs.cell_whole  # it diverged: the level is not called better
    assert found["sigmoid"].pairs.cell_whole
    none = effects(POINTS, study(), "linear beta", comparable=lambda cells: False)
    assert [m.cells for m in none] == [(), (), ()]
    assert {judge({0: m.pairs})[0].verdict for m in none} == {"no common seed"}


def test_cells_at_one_point_differ_in_something_unsaid_and_have_no_effects():
    """As two studies side by side whose cells have the same names: what else differs would be mixed in."""
    points = {**POINTS, **{f"again {c}": p for c, p in POINTS.items()}}
    values = study(points=points)
    assert effects(points, values, "linear beta") == []
    assert interactions(points, values, "linear beta") == []


def test_only_seeds_that_all_matched_cells_have_count():
    values = study()
    del values["cosine tilde"][2]
    found = {m.levels[0]: m for m in effects(POINTS, values, "linear beta")}
    assert found["cosine"].pairs.seeds == (0, 1, 3)
    assert found["sigmoid"].pairs.seeds == (0, 1, 2, 3)


@pytest.mark.parametrize(("broken", "verdict"), [("cosine tilde", "inconclusive"), ("sigmoid beta", "better")])
def test_a_level_with_a_diverged_seed_is_not_called_better(broken, verdict):
    values = study(3, 4, lambda p: -50.0 * (p["schedule"] == "cosine"))
    m = effects(POINTS, values, "linear beta", broken=frozenset({broken}))[0]
    assert judge({0: m.pairs}, words(True))[0].verdict == verdict


def whole(points, values, reference):
    """The family of the report: cells and effects together, interactions apart."""
    pairs = {m.axes + m.levels: m.pairs for m in effects(points, values, reference)}
    more = {m.axes + m.levels: m.pairs for m in interactions(points, values, reference)}
    return {**judge(pairs), **judge(more, ("interaction", "interaction")), **contrasts(values, reference)}


def test_verdicts_do_not_depend_on_order_or_on_a_shift_that_a_seed_gives_all_cells():
    values = study(6, 4, lambda p: -20.0 * (p["schedule"] == "cosine") - 15.0 * (p == POINTS["sigmoid tilde"]))
    expected = whole(POINTS, values, "linear beta")
    assert {"better", "interaction", "inconclusive"} <= {c.verdict for c in expected.values()}
    shifted = {c: {s: v + (100.0, -30.0, 7.0, 0.25)[s] for s, v in x.items()} for c, x in values.items()}
    backwards = dict(reversed(POINTS.items()))
    for got in (whole(POINTS, shifted, "linear beta"), whole(backwards, values, "linear beta")):
        for key, contrast in got.items():
            same = expected.get(key) or expected[key[1::-1] + key[:1:-1]]  # an interaction may name its axes around
            assert contrast.verdict == same.verdict
            assert contrast.p == pytest.approx(same.p, rel=1e-6)


@pytest.mark.long
def test_no_effect_gives_a_false_verdict_in_at_most_6_of_100_factorial_studies():
    """Cells and effects of a two by three grid are one family: eight contrasts, all of nothing."""
    rng = np.random.default_rng(12)
    wrong = 0
    for numbers in rng.normal(50, 2, (700, 6, 3)):
        values = {c: dict(enumerate(row)) for c, row in zip(POINTS, numbers.tolist(), strict=True)}
        pairs = {m.axes + m.levels: m.pairs for m in effects(POINTS, values, "linear beta")}
        pairs |= {(c,): m for c, m in cells_of(values).items()}
        assert len(pairs) == 8
        wrong += any(c.verdict in ("better", "worse") for c in judge(pairs).values())
    assert 0 < wrong / 700 <= 0.06


def cells_of(values):
    return {c: Pairs.match(v, values["linear beta"]) for c, v in values.items() if c != "linear beta"}
