"""Advice in words: each sentence when it holds, and only then."""

from __future__ import annotations

import pytest

from ddpmkit.report.judge.advice import measuring, merged, smallest, to_settle, which_seeds
from ddpmkit.statistics import Components, Pairs, judge, seeds_for_margin, seeds_needed, smallest_visible


def contrast(differences, margin=None):
    pairs = Pairs(tuple(range(len(differences))), tuple(differences), (0.0,) * len(differences))
    return judge({0: pairs}, margin=margin)[0]


def test_a_gap_too_small_to_find_asks_for_a_margin():
    (said,) = to_settle({"b": (contrast([1.0, -1.0, 0.001]), 1.0)})
    assert said.startswith("b: the gap seen is so small")
    assert "set a margin" in said


def test_with_a_margin_the_cheaper_way_is_named():
    c = contrast([0.3, -0.3, 0.02], margin=0.5)
    (said,) = to_settle({"b": (c, 0.3)})
    assert seeds_needed(c.difference, 0.3) is None
    assert f"b {seeds_for_margin(0.5, 0.3)} " in said
    assert "set a margin" not in " ".join(to_settle({"b": (contrast([1.0, -1.0, 0.001], margin=1e-3), 1.0)}))


def test_never_fewer_seeds_than_there_are():
    c = contrast([3.0, 3.4, 2.2])
    assert seeds_needed(c.difference, 0.01) == 2
    assert "b 4 " in to_settle({"b": (c, 0.01)})[0]


def test_many_open_contrasts_are_cut_short():
    (said,) = to_settle({f"c{i}": (contrast([1.0, 0.2, 0.9]), 0.4) for i in range(9)})
    assert "and 5 more" in said


@pytest.mark.parametrize(
    ("parts", "sampled", "word"),
    [
        (Components(1.0, 0.1, None, 4, 6, 2.0), True, "only more train seeds help; 2 sample seeds are enough"),
        (Components(0.1, 4.0, None, 4, 6, 2.0), True, "95 % of the scatter of the differences is sampling"),
        (Components(1.0, None, None, 4, 0, 1.0), True, "--sample-seeds 0-2"),
        (Components(1.0, None, None, 4, 0, 1.0), False, None),
        (Components(0.0, 0.0, None, 4, 6, 2.0), True, None),
        (None, True, None),
    ],
)
def test_the_kind_of_seed(parts, sampled, word):
    said = which_seeds(parts, sampled)
    assert (said == []) if word is None else (word in said[0])


@pytest.mark.parametrize(
    ("parts", "share"),
    [
        (Components(1.0, None, 3.0, 4, 0, 1.0), "75 %"),
        (Components(1.0, 0.5, 6.0, 4, 6, 2.0), "71 %"),  # 3 of 4.25
        (Components(3.0, None, 1.0, 4, 0, 1.0), None),
        (Components(3.0, None, None, 4, 0, 1.0), None),
        (None, None),
    ],
)
def test_the_measurement(parts, share):
    said = measuring(parts, "look longer")
    assert (said == []) if share is None else (said[0].startswith(share) and said[0].endswith("look longer."))


def test_the_smallest_gap_takes_the_family_and_the_typical_spread():
    found = [contrast([1.0, 2.0, 1.5])] * 3
    expected = smallest_visible(3, 2.0 / 2**0.5, contrasts=3)
    assert smallest(found, [1.0, 2.0, 50.0]) == pytest.approx(expected)
    assert smallest([], []) is None
    assert smallest([contrast([1.0])], []) is None


def test_one_sentence_names_all_its_metrics():
    assert merged([("A", "x."), ("B", "y."), ("C", "x.")]) == ["A, C: x.", "B: y."]
