"""Pairs over the sample seeds that both sides have, and what differences without any spread may claim."""

from __future__ import annotations

import random
from statistics import fmean

import pandas as pd
import pytest

from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.foreign import records_of
from ddpmkit.statistics import Pairs, equivalence_p, interactions, judge, paired_p


def level(train, sample):
    """What a seed does to every cell: the train seeds are apart, the sample seeds lie at 5 and 9."""
    return 10.0 * train + (5.0, 9.0, 2.0, 7.0)[sample]


def study(gaps, trains=3, samples=2, *, without=(), points=None):
    """cell -> gap; a number a seed pair, but for the (cell, train, sample) that are left out."""
    rows = []
    for cell, gap in gaps.items():
        for t in range(trains):
            for s in range(samples):
                if (cell, t, s) not in without:
                    # a spread that is no rounding, the same in both sample seeds
                    value = level(t, s) + gap * (1 + 0.01 * t)
                    more = points[cell] if points else {}
                    rows.append(
                        {"cell": cell, "train_seed": t, "sample_seed": s, "metric": "FD", "value": value, **more}
                    )
    return records_of(pd.DataFrame(rows))


def test_a_missing_row_costs_its_train_seed_and_is_counted():
    summary = summarise(study({"base": 0.0, "new": 0.02}, without={("new", 2, 1)}))
    got = summary.differences["FD"]["new"]
    assert got.difference == pytest.approx(fmean([0.02, 0.0202]))
    assert (got.n, got.seeds) == (2, (0, 1))
    assert summary.values["FD"]["new"].keys() == {0, 1}
    assert any("new 2" in n and "sample seeds are missing" in n for n in summary.notes)


@pytest.mark.parametrize(
    "without",
    [
        {("base", 0, 0)},
        {("new", t, 1) for t in range(3)},  # one cell has one sample seed throughout
        {("base", t, 0) for t in range(3)},
        {("base", 1, 0), ("new", 1, 1)},  # no common sample seed at train seed 1
        {("base", 0, 1), ("new", 1, 0), ("new", 2, 1)},
    ],
)
def test_a_difference_is_never_that_of_the_sample_seeds(without):
    got = summarise(study({"base": 0.0, "new": 0.02}, without=without)).differences["FD"]["new"]
    assert got.n >= 1
    assert got.difference == pytest.approx(0.0202, abs=0.0003)


def test_sample_seeds_that_are_numbered_apart_for_each_train_seed_are_no_missing_rows():
    rows = [{"cell": c, "train_seed": t, "sample_seed": 2 * t + s, "metric": "FD", "value": level(t, s) + gap}
            for c, gap in (("a", 0.0), ("b", 1.0)) for t in range(3) for s in range(2)]  # fmt: skip
    summary = summarise(records_of(pd.DataFrame(rows)))
    assert summary.differences["FD"]["b"].n == 3
    assert not any("missing" in n for n in summary.notes)


def test_cells_without_a_common_sample_seed_are_not_paired():
    rows = [{"cell": c, "train_seed": t, "sample_seed": s, "metric": "FD", "value": level(t, s)}
            for c, s in (("a", 0), ("b", 1)) for t in range(3)]  # fmt: skip
    assert summarise(records_of(pd.DataFrame(rows))).differences["FD"]["b"].verdict == "no common seed"


def test_effects_and_interactions_are_over_common_sample_seeds_too():
    points = {f"{a}{b}": {"one": a, "two": b} for a in "xy" for b in "uv"}
    gaps = {"xu": 0.0, "xv": 0.5, "yu": 0.02, "yv": 0.52}
    lost = {("yu", t, 1) for t in range(3)} | {("xv", 1, 0)}
    summary = summarise(study(gaps, without=lost, points=points))
    effects = {e.axis: e.contrast for e in summary.effects["FD"]}
    assert effects["one"].difference == pytest.approx(0.0202, abs=0.0003)
    assert effects["two"].difference == pytest.approx(0.505, abs=0.006)
    (crossed,) = summary.interactions["FD"]
    assert crossed.contrast.difference == pytest.approx(0.0, abs=1e-9)


def brute_force(rows, cell, base):
    """The rule in loops: whole train seeds of each cell, then the sample seeds that both have."""

    def whole(name):
        by = {}
        for c, t, s, v in rows:
            if c == name:
                by.setdefault(t, {})[s] = v
        if not by:
            return {}
        sizes = [len(v) for v in by.values()]
        usual = max(sizes, key=lambda n: (sizes.count(n), n))
        return {t: v for t, v in by.items() if len(v) >= usual}

    mine, theirs = whole(cell), whole(base)
    gaps = {}
    for t in mine.keys() & theirs.keys():
        both = mine[t].keys() & theirs[t].keys()
        if both:
            gaps[t] = fmean(mine[t][s] - theirs[t][s] for s in both)
    return gaps


@pytest.mark.long
def test_random_missing_rows_are_paired_as_a_brute_force_reference_pairs_them():
    rng = random.Random(9)
    moved = 0
    for _ in range(60):
        rows = [
            (c, t, s, level(t, s) + gap + rng.gauss(0, 0.001))
            for c, gap in (("base", 0.0), ("new", 0.02), ("other", -1.0))
            for t in range(5)
            for s in range(rng.choice([2, 3]))
            if rng.random() < 0.8
        ]
        if not {"base", "new", "other"} <= {r[0] for r in rows}:
            continue
        frame = pd.DataFrame(rows, columns=["cell", "train_seed", "sample_seed", "value"]).assign(metric="FD")
        summary = summarise(records_of(frame), "base")
        for cell, gap in (("new", 0.02), ("other", -1.0)):
            expected, got = brute_force(rows, cell, "base"), summary.differences["FD"][cell]
            assert set(got.seeds) == set(expected)
            if expected:
                assert got.difference == pytest.approx(fmean(expected.values()), abs=1e-9)
                assert got.difference == pytest.approx(gap, abs=0.005)
                moved += len(expected) < 5
    assert moved > 20


# --- no spread ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("differences", [[0.01, 0.01], [0.0, 0.0, 0.0], [0.3 - 0.2, 0.2 - 0.1, 0.1], [5.0] * 12])
def test_nothing_is_equivalent_by_differences_without_a_spread(differences):
    assert equivalence_p(differences, 20.0) is None


def test_any_spread_at_all_may_show_equivalence():
    assert equivalence_p([0.01, 0.011], 0.02) < 0.05


def test_rounded_values_get_no_verdict_of_equality_and_the_note_asks():
    frame = pd.DataFrame(
        [{"cell": c, "train_seed": t, "metric": "acc", "value": v} for c, x in
         (("a", [0.91, 0.93]), ("b", [0.92, 0.94]), ("c", [0.91, 0.93])) for t, v in enumerate(x)]
    )  # fmt: skip
    summary = summarise(records_of(frame), margin={"acc": 0.02})
    got = summary.differences["acc"]["b"]
    assert (got.verdict, got.p_equivalence, got.low, got.equivalence_low) == ("inconclusive", None, None, None)
    assert any("same difference on every seed: b acc +0.01" in n and "rounded" in n for n in summary.notes)
    assert summary.differences["acc"]["c"].verdict == "inconclusive"
    assert not any("settle" in a for a in summary.advice)


def test_a_cell_whose_numbers_are_all_the_same_has_no_interval():
    frame = pd.DataFrame([{"cell": c, "train_seed": t, "metric": "acc", "value": v} for c, v in (("a", 0.5), ("b", 0.7))
                          for t in range(3)])  # fmt: skip
    found = summarise(records_of(frame)).intervals["acc"]
    assert {(c, i.low, i.high, i.n) for c, i in found.items()} == {("a", None, None, 3), ("b", None, None, 3)}


@pytest.mark.parametrize("base", [959_847.2, 3.1e7])
def test_what_rounding_leaves_of_large_numbers_is_no_spread(base):
    """0.01 more at every seed: in floating point the differences are apart by 1e-10 and more."""
    values = [base * k for k in (1.0, 1.3, 2.1, 3.7)]
    pairs = Pairs((0, 1, 2, 3), tuple(v + 0.01 for v in values), tuple(values))
    assert len({a - b for a, b in zip(pairs.cell, pairs.base, strict=True)}) > 1
    got = judge({0: pairs}, margin=0.02)[0]
    assert got.flat
    assert got.p_equivalence is None
    assert got.p == pytest.approx(2 / 2**4)


def test_an_interaction_that_is_rounding_alone_is_none():
    """Effects that add up exactly leave differences of differences of 1e-16, which a t test would believe."""
    points = {f"{a}{b}": {"one": a, "two": b} for a in "xy" for b in "uv"}
    values = {
        c: {s: 0.1 * (s + 1) + (0.7 if p["one"] == "y" else 0) + (0.3 if p["two"] == "v" else 0) for s in range(5)}
        for c, p in points.items()
    }
    (found,) = interactions(points, values, "xu")
    assert judge({0: found.pairs}, ("interaction", "interaction"))[0].verdict == "inconclusive"


def test_a_p_from_no_spread_is_the_least_of_the_exact_test():
    assert paired_p([0.5] * 3) == 0.25
    assert paired_p([0.5, 0.5, 0.5 + 1e-6]) < 1e-6
