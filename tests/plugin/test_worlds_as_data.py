"""Worlds with known answers: their entropies against brute force over all images, their draws against probabilities."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

import ddpmkit

SPECS = ["gaussian:levels=4:mean=0.2", "two-point:p=0.3", "two-point:p=0.3:levels=5", "mixture:levels=4:weight=0.3"]


def pixel(mean: float, deviation: float, levels: int) -> list[float]:
    """Probabilities of the levels, from the definition: which reals are nearest to each."""
    step = 2 / (levels - 1)
    cuts = [-math.inf, *(-1 + step * (k + 0.5) for k in range(levels - 1)), math.inf]
    return [norm.cdf(b, mean, deviation) - norm.cdf(a, mean, deviation) for a, b in itertools.pairwise(cuts)]


def entropy(probabilities: Any) -> float:
    return -sum(p * math.log2(p) for p in probabilities if p > 0)


def joint(world: Any, weights: Any, tables: Any) -> list[float]:
    """The probability of each possible image of 2x2."""
    images = itertools.product(range(world.levels), repeat=4)
    return [sum(w * math.prod(t[k] for k in image) for w, t in zip(weights, tables, strict=True)) for image in images]


@pytest.mark.parametrize("levels", [2, 3, 7])
def test_the_entropy_of_the_gaussian_world(levels: int) -> None:
    world = ddpmkit.build("dataset", f"gaussian:levels={levels}:mean=0.3:deviation=0.5")
    probabilities = joint(world, [1.0], [pixel(0.3, 0.5, levels)])
    assert sum(probabilities) == pytest.approx(1)
    assert world.bits_per_dim() == pytest.approx(entropy(probabilities) / 4, rel=1e-12)


@pytest.mark.parametrize("levels", [2, 5])
def test_the_entropy_of_the_two_point_world(levels: int) -> None:
    world = ddpmkit.build("dataset", f"two-point:p=0.2:levels={levels}")
    table = [0.8, *[0.0] * (levels - 2), 0.2]
    assert world.bits_per_dim() == pytest.approx(entropy(joint(world, [1.0], [table])) / 4, rel=1e-12)


@pytest.mark.parametrize(("mean", "deviation"), [(0.5, 0.15), (0.3, 0.5), (0.0, 0.4), (1.0, 0.05)])
def test_the_entropy_of_the_mixture(mean: float, deviation: float) -> None:
    world = ddpmkit.build("dataset", f"mixture:levels=5:weight=0.3:mean={mean}:deviation={deviation}")
    tables = [pixel(-mean, deviation, 5), pixel(mean, deviation, 5)]
    given = sum(w * entropy(joint(world, [1.0], [t])) / 4 for w, t in zip((0.7, 0.3), tables, strict=True))
    assert world.bits_per_dim_given_class() == pytest.approx(given, rel=1e-12, abs=1e-12)
    whole = entropy(joint(world, (0.7, 0.3), tables)) / 4
    low, high = world.bits_per_dim()
    assert low - 1e-12 <= whole <= high + 1e-12
    assert high - low == pytest.approx(entropy((0.7, 0.3)) / 4)
    if mean == 1:  # the two do not overlap
        assert whole == pytest.approx(high, rel=1e-9)
    if mean == 0:  # they are one
        assert whole == pytest.approx(low, rel=1e-9)


@pytest.mark.parametrize("text", SPECS)
def test_draws_have_the_stated_probabilities_and_are_the_same_every_time(text: str) -> None:
    world = ddpmkit.build("dataset", f"{text}:train=20000")
    images = world.load()
    assert images.fingerprint() == world.load().fingerprint()
    assert images.train.shape == (20000, 1, 2, 2)
    assert images.train.dtype == np.uint8
    assert images.levels == world.levels
    assert int(images.train.max()) < world.levels
    for label in (0, 1) if images.labels else (None,):
        chosen = images.train if label is None else images.train[images.labels["train"] == label]
        if world.name == "two-point":
            expected = [0.7, *[0.0] * (world.levels - 2), 0.3]
        else:
            mean = world.mean if label is None else world.mean * (2 * label - 1)
            expected = pixel(mean, world.deviation, world.levels)
        shares = np.bincount(chosen.ravel(), minlength=world.levels) / chosen.size
        assert np.abs(shares - expected).max() < 0.02
        # Pixels do not know each other, given the class.
        together = np.corrcoef(chosen.reshape(-1, 4).T)
        assert np.abs(together - np.eye(4)).max() < 0.05
    if images.labels:
        assert abs(images.labels["train"].mean() - 0.3) < 0.02
    assert any("bits/dim" in note for note in images.notes)
    assert not np.array_equal(images.train[:1000], images.test)
    assert ddpmkit.build("dataset", f"{text}:train=20000:seed=1").fingerprint() != images.fingerprint()


@pytest.mark.parametrize("text", SPECS)
def test_fewer_images_are_the_first_of_more_and_move_no_other_split(text: str) -> None:
    few, many = (
        ddpmkit.build("dataset", f"{text}:{sizes}").load()
        for sizes in ("train=50:validation=7:test=20", "train=90:validation=12:test=31")
    )
    for split in ("train", "validation", "test"):
        one, other = getattr(few, split), getattr(many, split)
        assert np.array_equal(one, other[: len(one)])
        if few.labels:
            assert np.array_equal(few.labels[split], many.labels[split][: len(one)])
    assert not np.array_equal(many.train[:31], many.test)
