"""KID against a naive double loop, its unbiasedness and its standard error."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from ddpmkit.distances import kernel as kid_module
from ddpmkit.distances.kernel import kernel_distance
from ddpmkit.errors import DdpmkitError


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def naive(x, y):
    d = x.shape[1]

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / d + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_every_pair_once(rng, monkeypatch):
    x, y = rng.normal(size=(13, 3)), 2 * rng.normal(size=(9, 3)) + 1
    assert kernel_distance(x, y, standardise=False).value == pytest.approx(naive(x, y), rel=1e-12)
    standard = [(v - y.mean(0)) / y.std(0) for v in (x, y)]
    assert kernel_distance(x, y).value == pytest.approx(naive(*standard), rel=1e-12)
    monkeypatch.setattr(kid_module, "CHUNK", 4)
    assert kernel_distance(x, y).value == pytest.approx(naive(*standard), rel=1e-12)


def test_the_scale_and_the_offset_of_a_feature_do_not_matter(rng):
    x, y = rng.normal(size=(60, 3)) + 0.2, rng.normal(size=(50, 3))
    scale, shift = np.array([1e-3, 1.0, 1e4]), np.array([5.0, -7.0, 1e4])
    assert kernel_distance(x * scale + shift, y * scale + shift).value == pytest.approx(
        kernel_distance(x, y).value, rel=1e-8
    )


def test_it_is_unbiased_and_its_error_is_the_spread_of_its_values(rng):
    """Over samples and reference (se_both), and over samples of one reference (se)."""
    reference = rng.normal(size=(150, 4))
    both, one = [], []
    for _ in range(250):
        x = rng.normal(size=(120, 4)) + 0.5
        both.append(kernel_distance(x, rng.normal(size=(150, 4)), standardise=False))
        one.append(kernel_distance(x, reference, standardise=False))
    assert np.mean([b.details["se_both"] for b in both]) == pytest.approx(np.std([b.value for b in both]), rel=0.15)
    assert np.mean([o.se for o in one]) == pytest.approx(np.std([o.value for o in one]), rel=0.15)
    null = [kernel_distance(rng.normal(size=(40, 4)), rng.normal(size=(30, 4)), standardise=False) for _ in range(300)]
    values = [v.value for v in null]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)
    assert min(values) < 0


def test_a_feature_that_never_varies_is_no_division_by_zero(rng):
    x, y = rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    y[:, 1] = 3
    assert np.isfinite(kernel_distance(x, y).value)


def test_a_feature_that_is_constant_but_for_rounding_is_constant(rng):
    x, y = rng.normal(size=(200, 4)), rng.normal(size=(150, 4))
    level = -1 + 2 * 10 / 255  # its mean over 150 images is not itself
    x[:, 1], y[:, 1] = level, level
    assert 0 < y.std(0)[1] < 1e-14
    alone = kernel_distance(x, y).value
    x[3, 1] = -1 + 2 * 11 / 255
    assert kernel_distance(x, y).value == pytest.approx(alone, abs=1e-4)
    # Centred noise beside features that vary, as the axes of a rank that the data do not have.
    x[:, 1], y[:, 1] = 1e-13 * rng.normal(size=200), 1e-13 * rng.normal(size=150)
    x[3, 1] = 0.1
    assert kernel_distance(x, y).value == pytest.approx(alone, abs=1e-2)


def test_bad_features_are_refused():
    with pytest.raises(DdpmkitError, match="at least 2"):
        kernel_distance(np.zeros((1, 2)), np.zeros((5, 2)))
    with pytest.raises(DdpmkitError, match="not finite"):
        kernel_distance(np.full((3, 2), np.nan), np.zeros((5, 2)))
