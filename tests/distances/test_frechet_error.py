"""The debiased distance, its interval and the value of a perfect model: against simulations with a known distance."""

import numpy as np
import pytest
from scipy import linalg
from threadpoolctl import threadpool_limits

from ddpmkit.distances.frechet import frechet_distance, frechet_from_moments
from ddpmkit.distances.frechet_error import debiased_frechet, expected_frechet, influence
from ddpmkit.distances.measurement import Measurement, paired_difference
from ddpmkit.distances.moments import Moments
from ddpmkit.errors import DdpmkitError


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def world(rng, d, shift=0.15, scale=1.2):
    """A reference N(mu, cov), and the Cholesky factor and mean of a generator at a known distance."""
    a = rng.normal(size=(d, 2 * d))
    cov = a @ a.T / (2 * d)
    own = scale * cov + 0.1 * np.diag(rng.uniform(size=d))
    return np.zeros(d), cov, np.full(d, shift), linalg.cholesky(own, lower=True)


def interval_holds(found: Measurement, value: float, truth: float) -> bool:
    return abs(value - truth) <= 1.959964 * found.se


@pytest.mark.long
@pytest.mark.parametrize(("n", "d", "scale"), [(1000, 16, 1.5), (400, 16, 1.02)], ids=["far", "near"])
def test_the_interval_of_the_debiased_value_covers_and_that_of_the_plain_value_does_not(rng, n, d, scale):
    """300 repetitions at a known distance; the plain value is too large by about a standard error or more."""
    mu, cov, mean, lower = world(rng, d, scale=scale)
    truth = frechet_from_moments(mean, lower @ lower.T, mu, cov)
    debiased = plain = 0
    values, errors = [], []
    for _ in range(300):
        x = rng.standard_normal((n, d)) @ lower.T + mean
        found = debiased_frechet(x, mu, cov)
        debiased += interval_holds(found, found.value, truth)
        plain += interval_holds(found, found.details["plain"], truth)
        values.append(found.value)
        errors.append(found.se)
    assert 0.90 <= debiased / 300 <= 0.99
    assert plain / 300 < 0.85
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)
    # No bias that the standard error of 300 values could show, four of them wide; the plain value's is far outside.
    assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(300)


def test_the_plain_interval_fails_altogether_where_the_bias_is_large(rng):
    d, n = 64, 1000
    mu, cov, mean, lower = world(rng, d)
    truth = frechet_from_moments(mean, lower @ lower.T, mu, cov)
    covered = [0, 0]
    for _ in range(40):
        found = debiased_frechet(rng.standard_normal((n, d)) @ lower.T + mean, mu, cov)
        covered[0] += interval_holds(found, found.value, truth)
        covered[1] += interval_holds(found, found.details["plain"], truth)
    assert covered[0] >= 34
    assert covered[1] == 0


def test_the_influence_is_the_derivative_of_the_distance(rng):
    """Against a numerical derivative: a little more weight on one sample."""
    x, mu = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=4)
    a = rng.normal(size=(4, 8))
    cov = a @ a.T

    def weighted(w):
        mean = w @ x
        centred = x - mean
        return frechet_from_moments(mean, (centred * w[:, None]).T @ centred, mu, cov)

    uniform = np.full(50, 1 / 50)
    own = Moments(50, x.mean(0), np.cov(x.T, bias=True) * 49)  # a covariance that divides by n, as the weights do
    got = influence(x, own, mu, cov)
    for i in (0, 7, 49):
        h = 1e-6
        plus, minus = ((1 - s * h) * uniform + s * h * np.eye(50)[i] for s in (1, -1))
        assert got[i] == pytest.approx((weighted(plus) - weighted(minus)) / (2 * h), rel=1e-5, abs=1e-6)
    assert got.mean() == pytest.approx(0, abs=1e-10)


def test_the_debiased_value_is_twice_the_whole_less_the_mean_of_the_halves(rng):
    x, y = rng.normal(size=(101, 5)), rng.normal(size=(300, 5)) * 1.1
    got = debiased_frechet(x, y.mean(0), np.cov(y.T), n_reference=300, reference=y)
    order = np.random.default_rng(0).permutation(101)
    halves = [frechet_distance(x[order[:50]], y), frechet_distance(x[order[50:]], y)]
    assert got.details["plain"] == pytest.approx(frechet_distance(x, y), rel=1e-10)
    assert got.value == pytest.approx(2 * frechet_distance(x, y) - np.mean(halves), rel=1e-9)


def test_a_negative_value_stays_negative(rng):
    """Copies of the reference: the plain distance is 0 and the halves' is not."""
    y = rng.normal(size=(500, 8))
    got = debiased_frechet(y, y.mean(0), np.cov(y.T))
    assert got.details["plain"] == pytest.approx(0, abs=1e-12)
    assert got.value < -1e-3


@pytest.mark.parametrize("spectrum", [np.ones(16), 1 / np.arange(1, 17.0)], ids=["flat", "power"])
def test_the_expected_value_of_a_perfect_model(rng, spectrum):
    n, m, d = 2000, 1000, 16
    cov = np.diag(spectrum)
    draws = []
    for _ in range(150):
        x, y = (rng.standard_normal((k, d)) * np.sqrt(spectrum) for k in (n, m))
        draws.append(frechet_distance(x, y))
    slack = 0.03 + 4 * np.std(draws) / np.mean(draws) / np.sqrt(150)
    assert slack < 0.1
    assert np.mean(draws) == pytest.approx(expected_frechet(cov, n, m), rel=slack)
    if (spectrum == 1).all():
        assert expected_frechet(cov, n) == pytest.approx((d + d * (d + 1) / 4) / n, rel=1e-12)


def test_the_published_expectations():
    """D = 64 isotropic, n = 1000, one side exact: 1.104."""
    assert expected_frechet(np.eye(64), 1000) == pytest.approx(1.104, abs=5e-4)


def test_shared_noise_makes_a_difference_sharper(rng):
    """Two generators fed with the same noise: the paired error is the difference's own, far below independence."""
    mu, cov, mean, lower = world(rng, 8)
    pairs, differences, errors, alone = [], [], [], []
    for _ in range(80):
        z = rng.standard_normal((800, 8))
        a, b = (debiased_frechet(z @ f.T + m, mu, cov) for f, m in ((lower, mean), (1.02 * lower, mean * 0.9)))
        difference, se = paired_difference(a, b)
        pairs.append((a.value, b.value))
        differences.append(difference)
        errors.append(se)
        alone.append(np.hypot(a.se, b.se))
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.25)
    assert np.mean(errors) < 0.2 * np.mean(alone)
    assert differences[0] == pairs[0][0] - pairs[0][1]


def test_samples_that_were_not_drawn_together_have_no_paired_error(rng):
    y = rng.normal(size=(200, 3))
    a, b = (debiased_frechet(rng.normal(size=(n, 3)), y.mean(0), np.cov(y.T)) for n in (100, 101))
    with pytest.raises(DdpmkitError, match="100 and 101 samples"):
        paired_difference(a, b)
    with pytest.raises(DdpmkitError, match="without a standard error"):
        paired_difference(a, Measurement(0.0))


@pytest.mark.parametrize(("n", "said"), [(30, "below the 40 dimensions"), (60, "below twice the 40 dimensions")])
def test_too_few_samples_for_the_dimensions_are_said_aloud(rng, n, said):
    x, y = rng.normal(size=(n, 40)), rng.normal(size=(500, 40))
    got = debiased_frechet(x, y.mean(0), np.cov(y.T), n_reference=500, reference=y)
    assert got.value == got.details["plain"] == pytest.approx(frechet_distance(x, y), rel=1e-9)
    assert got.se is None
    assert f"N = {n} is {said}" in got.details["note"]
    assert got.details["debiased"] is False


def test_few_samples_for_the_dimensions_are_said_aloud(rng):
    y = rng.normal(size=(500, 20))
    got = debiased_frechet(y[:100], y.mean(0), np.cov(y.T))
    assert "N = 100 is below 8 x 20" in got.details["note"]
    assert got.se > 0


def test_a_feature_that_is_dead_in_both_changes_nothing_and_one_that_is_dead_in_the_samples_takes_the_error_away(rng):
    x, y = rng.normal(size=(300, 4)), 1.3 * rng.normal(size=(400, 4))
    plain = debiased_frechet(x, y.mean(0), np.cov(y.T))
    x5, y5 = (np.hstack([v, np.full((len(v), 1), 2.0)]) for v in (x, y))
    dead = debiased_frechet(x5, y5.mean(0), np.cov(y5.T))
    assert (dead.value, dead.se) == (pytest.approx(plain.value, rel=1e-9), pytest.approx(plain.se, rel=1e-9))
    y5[:, 4] = rng.normal(size=400)
    half = debiased_frechet(x5, y5.mean(0), np.cov(y5.T))
    assert half.se is None
    assert "never vary in the samples" in half.details["note"]
    # Dead in the reference alone is regular: T is 0 there.
    x5[:, 4], y5[:, 4] = rng.normal(size=300), 0
    assert debiased_frechet(x5, y5.mean(0), np.cov(y5.T)).se > 0


def test_the_error_scales_and_rotates_with_the_features(rng):
    x, y = rng.normal(size=(300, 5)), 1.2 * rng.normal(size=(300, 5)) + 0.1
    base = debiased_frechet(x, y.mean(0), np.cov(y.T))
    q = linalg.qr(rng.normal(size=(5, 5)))[0]
    turned = debiased_frechet(3 * x @ q, 3 * y.mean(0) @ q, 9 * q.T @ np.cov(y.T) @ q)
    assert turned.value == pytest.approx(9 * base.value, rel=1e-9)
    assert turned.se == pytest.approx(9 * base.se, rel=1e-9)


def test_one_sample_or_nan_has_no_distance():
    with pytest.raises(DdpmkitError, match="at least 2"):
        debiased_frechet(np.zeros((1, 2)), np.zeros(2), np.eye(2))
    x = np.zeros((9, 2))
    x[3, 1] = np.nan
    with pytest.raises(DdpmkitError, match="not finite, in 1 of 9 rows"):
        debiased_frechet(x, np.zeros(2), np.eye(2))


@pytest.mark.parametrize(("n_reference", "few"), [(0, False), (3, True), (4, True), (5, False), (400, False)])
def test_a_reference_of_no_more_images_than_dimensions_is_warned_of(rng, n_reference, few):
    x = rng.standard_normal((200, 4))
    found = debiased_frechet(x, np.zeros(4), np.eye(4), n_reference=n_reference)
    assert found.details.get("note", "").startswith(f"{n_reference} reference images are no more than the 4") == few
    small = debiased_frechet(x[:6], np.zeros(4), np.eye(4), n_reference=n_reference).details["note"]
    assert small.startswith("N = 6 is below twice the 4 dimensions")
    assert ("; " in small) == few  # both are said
