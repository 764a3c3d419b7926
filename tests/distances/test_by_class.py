"""Scores by class: each class against its own real images, and only where there are enough of both."""

from __future__ import annotations

import numpy as np
import pytest

from ddpmkit.distances.by_class import by_class, heldout_by_class, least, perfect_by_class
from ddpmkit.distances.copies import copy_check
from ddpmkit.distances.frechet_error import debiased_frechet
from ddpmkit.plugin.interfaces import Sets

D = 3
RNG = np.random.default_rng(0)


def sets(x, y, **images) -> Sets:
    return Sets(x=x, mu=y.mean(0), cov=np.cov(y.T), n_reference=len(y), y=y, **images)


def test_each_class_is_held_against_its_own_real_images():
    labels, real = RNG.integers(0, 3, 300), RNG.integers(0, 3, 400)
    shift = 10.0 * np.arange(3)
    x = RNG.standard_normal((300, D)) + shift[labels][:, None]
    y = RNG.standard_normal((400, D)) + shift[real][:, None]
    rows = by_class(sets(x, y), labels, real, copies=False)
    assert [r["class"] for r in rows] == [0, 1, 2]
    assert [r["n"] for r in rows] == np.bincount(labels).tolist()
    assert [r["n_reference"] for r in rows] == np.bincount(real).tolist()
    for c, row in enumerate(rows):
        mine, theirs = x[labels == c], y[real == c]
        alone = debiased_frechet(mine, theirs.mean(0), np.cov(theirs.T), n_reference=len(theirs), reference=theirs)
        assert row["fd"] == pytest.approx(alone.value, abs=1e-9)
        assert row["fd_se"] == pytest.approx(alone.se)
        assert row["fd"] < 1  # the same distribution; of labels out of step it would be about 100
    wrong = by_class(sets(x, y), np.roll(labels, 1), real, copies=False)
    assert min(r["fd"] for r in wrong) > 10


@pytest.mark.parametrize("m", [40, 400])
def test_a_perfect_model_by_class_is_at_the_bias_of_its_reference(m):
    rng = np.random.default_rng(5)
    d, found, said = 6, [], []
    labels = np.repeat([0, 1], [m, 3])
    for _ in range(40):
        y = rng.standard_normal((m + 3, d))
        told = perfect_by_class(y, labels)
        assert [(row["class"], row["n"]) for row in told] == [(0, m)]  # the other has too few
        said.append(told[0]["fd"])
        x = rng.standard_normal((1000, d))
        found.append(by_class(sets(x, y), np.zeros(1000, np.int64), labels, copies=False)[0]["fd"])
    bias = 16.5 / m  # of an identity: (D + (D^2 / 2 + D / 2) / 2) / M
    assert np.mean(said) == pytest.approx(bias, rel=0.1)
    assert np.mean(found) == pytest.approx(bias, rel=0.1)


def test_a_class_with_too_few_images_on_either_side_has_no_distance():
    assert least(D) == 8
    labels = np.repeat([0, 1, 2], [8, 7, 8])
    real = np.repeat([0, 1, 2], [8, 8, 7])
    x, y = RNG.standard_normal((len(labels), D)), RNG.standard_normal((len(real), D))
    rows = by_class(sets(x, y), labels, real, copies=False)
    assert ["fd" in r for r in rows] == [True, False, False]
    assert all("fd" not in r and "near" not in r for r in by_class(sets(x, y), labels, real, fd=False, copies=False))


def test_near_copies_by_class_are_those_of_the_copy_check():
    train = RNG.integers(0, 256, (60, 1, 4, 4)).astype(np.uint8)
    heldout = RNG.integers(0, 256, (50, 1, 4, 4)).astype(np.uint8)
    fresh = RNG.integers(0, 256, (30, 1, 4, 4)).astype(np.uint8)
    samples = np.concatenate([train[:10], fresh])  # class 7 is all copies but two
    labels = np.array([7] * 12 + [1] * 28)
    x = RNG.standard_normal((40, D))
    held = sets(x, x, x_levels=samples, train=train, heldout=heldout)
    rows = {r["class"]: r for r in by_class(held, labels, labels, fd=False)}
    assert rows[7]["near"] == pytest.approx(10 / 12)
    assert rows[1]["near"] == 0
    flat = (levels.reshape(len(levels), -1) for levels in (samples, train, heldout))
    check = copy_check(*flat).details  # another function than by_class asks, over all samples at once
    real = heldout_by_class(train, heldout, np.repeat([0, 3], 25))
    assert [(r["class"], r["n"]) for r in real] == [(0, 25), (3, 25)]
    assert sum(25 * r["near"] for r in real) / 50 == pytest.approx(check["near_heldout"])
    assert (12 * rows[7]["near"] + 28 * rows[1]["near"]) / 40 == pytest.approx(check["near"])


def test_what_the_copy_check_hands_on_is_taken_once(monkeypatch):
    """Of the same sets by_class finds the same near copies, and looks for none where it is told."""
    from ddpmkit.distances import by_class as module

    train = RNG.integers(0, 256, (60, 1, 4, 4)).astype(np.uint8)
    heldout = RNG.integers(0, 256, (50, 1, 4, 4)).astype(np.uint8)
    samples = np.concatenate([train[:9], RNG.integers(0, 256, (31, 1, 4, 4)).astype(np.uint8)])
    labels, x = RNG.integers(0, 3, 40), RNG.standard_normal((40, D))
    held = sets(x, x, x_levels=samples, train=train, heldout=heldout)
    near = copy_check(*(levels.reshape(len(levels), -1) for levels in (samples, train, heldout))).rows["near"]
    assert near.sum() == 9
    alone = by_class(held, labels, labels, fd=False)
    monkeypatch.setattr(module, "near_copies", None)
    assert by_class(held, labels, labels, fd=False, near=near) == alone
    assert all("near" not in row for row in by_class(held, labels, labels, fd=False, copies=False, near=near))
