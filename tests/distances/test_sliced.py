"""Sliced Wasserstein against scipy, closed forms and a numerical derivative."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from ddpmkit.distances.sliced import sliced_wasserstein
from ddpmkit.errors import DdpmkitError


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_a_shift_costs_its_square_over_the_dimensions(rng):
    """|m|^2 / D on average over directions, 0.01 for D = 64 and a shift of .1: exact in each direction."""
    x = rng.normal(size=(100, 64))
    got = sliced_wasserstein(x + 0.1, x, directions=4000).value
    assert got == pytest.approx(0.01, rel=0.08)
    theta = np.random.default_rng(0).standard_normal((256, 64))
    theta /= np.linalg.norm(theta, axis=1, keepdims=True)
    assert sliced_wasserstein(x + 0.1, x).value == pytest.approx(np.square(theta.sum(1) * 0.1).mean(), rel=1e-10)


def test_one_dimension_is_the_matching_of_sorted_values(rng):
    x, y = rng.normal(size=(50, 1)), rng.normal(size=(50, 1)) * 2
    expected = np.square(np.sort(x[:, 0]) - np.sort(y[:, 0])).mean()
    assert sliced_wasserstein(x, y).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(5, 3), (12, 8), (7, 49), (100, 33)])
def test_unequal_sizes_against_repeated_rows(rng, n, m):
    x, y = rng.normal(size=(n, 1)), rng.normal(size=(m, 1)) + 0.5
    expected = np.square(np.sort(np.repeat(x[:, 0], m)) - np.sort(np.repeat(y[:, 0], n))).mean()
    assert sliced_wasserstein(x, y).value == pytest.approx(expected, rel=1e-12)
    # W1 of a pure shift is its square root, by scipy
    assert sliced_wasserstein(x + 2, x).value == pytest.approx(wasserstein_distance(x[:, 0] + 2, x[:, 0]) ** 2)


def test_nothing_to_oneself_in_any_order_and_the_same_directions_every_time(rng):
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(30, 6))
    assert sliced_wasserstein(x, rng.permutation(x)).value == 0
    assert sliced_wasserstein(x, y).value == sliced_wasserstein(x, y).value
    assert sliced_wasserstein(x, y, seed=1).value != sliced_wasserstein(x, y).value


@pytest.mark.long
def test_the_error_is_the_spread_over_samples(rng):
    y = rng.normal(size=(300, 4))
    runs = [sliced_wasserstein(rng.normal(size=(300, 4)) * 1.1 + 0.5, y, directions=64) for _ in range(120)]
    assert np.mean([r.se for r in runs]) == pytest.approx(np.std([r.value for r in runs]), rel=0.2)


def test_bad_features_are_refused():
    with pytest.raises(DdpmkitError, match="2 and 3 dimensions"):
        sliced_wasserstein(np.zeros((4, 2)), np.zeros((4, 3)))
