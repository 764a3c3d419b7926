"""Likelihoods of models that have learnt next to nothing."""

import math

import numpy as np
import pytest

from ddpmkit.likelihood.baselines import categorical_bits, uniform_bits


def images(values):
    """Levels (N, C*H*W) as (N, 1, 1, W) images."""
    array = np.asarray(values, dtype=np.uint8)
    return array.reshape(len(array), 1, 1, -1)


@pytest.mark.parametrize(("levels", "bits"), [(2, 1.0), (17, 4.087462841250339), (256, 8.0)])
def test_uniform(levels, bits):
    assert uniform_bits(levels) == pytest.approx(bits, rel=1e-14)


def test_categorical_by_hand():
    """Three images of two pixels on three levels; (n + 1/2) / (N + 3/2)."""
    train, test = images([[0, 2], [0, 1], [1, 2]]), images([[0, 0]])
    expected = -0.5 * (math.log2(2.5 / 4.5) + math.log2(0.5 / 4.5))
    assert categorical_bits(train, test, 3) == pytest.approx(expected, rel=1e-12)


def test_categorical_of_an_unseen_level_is_finite_and_the_masses_sum_to_one():
    train = images(np.zeros((10, 1)))
    bits = [categorical_bits(train, images([[k]]), 17) for k in range(17)]
    assert np.isfinite(bits).all()
    assert sum(2.0**-b for b in bits) == pytest.approx(1, abs=1e-12)
    assert bits[0] < bits[1] == bits[16]


def test_categorical_of_many_images_is_the_entropy_of_each_pixel():
    rng = np.random.default_rng(0)
    p = np.array([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]])
    train, test = (images(np.stack([rng.choice(3, n, p=q) for q in p], axis=1)) for n in (20_000, 40_000))
    entropy = float(-(p * np.log2(p)).sum(1).mean())
    assert categorical_bits(train, test, 3) == pytest.approx(entropy, abs=0.01)


def test_a_pixel_has_its_own_distribution_in_every_channel():
    train = np.zeros((50, 2, 2, 2), np.uint8)
    train[:, 1, 0, 1] = 1
    swapped = np.zeros((1, 2, 2, 2), np.uint8)
    swapped[:, 0, 1, 0] = 1
    assert categorical_bits(train, train, 2) < 0.02
    assert categorical_bits(train, swapped, 2) > 1
