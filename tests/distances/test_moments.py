"""Moments in one pass: against numpy, whatever the batches, and with a large offset."""

import numpy as np
import pytest

from ddpmkit.distances.moments import Moments, moments
from ddpmkit.errors import DdpmkitError


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 3], [100, 101, 399]], ids=str)
def test_any_batches_give_the_moments_of_the_whole(rng, offset, cuts):
    x = rng.normal(size=(400, 6)) * 0.1
    x += offset
    got = moments(np.split(x, cuts))
    assert got.n == 400
    exact = x.astype(np.longdouble)
    centred = exact - exact.mean(0)
    np.testing.assert_allclose(got.mean, exact.mean(0).astype(float), rtol=0, atol=3e-16 * (offset + 0.5))
    # Raw second moments would lose eight digits at 1e3 and all of them at 1e6.
    np.testing.assert_allclose(
        got.cov, (centred.T @ centred / 399).astype(float), rtol=0, atol=1e-16 + 1e-20 * offset**2
    )


def test_merging_does_not_depend_on_the_order(rng):
    a, b = Moments.of(rng.normal(size=(30, 3))), Moments.of(rng.normal(size=(5, 3)) + 7)
    ab, ba = a.merge(b), b.merge(a)
    np.testing.assert_allclose(ab.mean, ba.mean, rtol=1e-14)
    np.testing.assert_allclose(ab.scatter, ba.scatter, rtol=1e-12)


def test_what_has_no_moments_is_refused(rng):
    with pytest.raises(DdpmkitError, match="no features"):
        moments([])
    with pytest.raises(DdpmkitError, match="not finite"):
        moments([np.full((3, 2), np.nan)])
    with pytest.raises(DdpmkitError, match="3 and 2 dimensions"):
        moments([np.zeros((4, 3)), np.zeros((4, 2))])
    with pytest.raises(DdpmkitError, match="shape"):
        moments([np.zeros(4)])
    with pytest.raises(DdpmkitError, match="at least 2 samples, not 1"):
        _ = moments([np.zeros((1, 3))]).cov
