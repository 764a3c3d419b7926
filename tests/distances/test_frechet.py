"""The Frechet distance against closed forms, singular cases among them, and its invariances."""

import numpy as np
import pytest
from scipy import linalg
from threadpoolctl import threadpool_limits

from ddpmkit.distances import frechet_distance, frechet_from_moments
from ddpmkit.errors import DdpmkitError


@pytest.fixture(autouse=True)
def one_thread():
    """BLAS threads that fight for the cores make small matrices slow."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_cov(rng, d, scale=1.0):
    a = rng.normal(size=(d, 2 * d))
    return scale * a @ a.T / (2 * d)


def with_moments(rng, n, mu, cov):
    """Features whose sample mean and covariance are exactly the given ones."""
    x = rng.normal(size=(n, len(mu)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T).reshape(len(mu), -1)).T)
    return x @ np.linalg.cholesky(cov).T + mu


def test_isotropic_gaussians_of_the_reference():
    """|m1 - m2|^2 + D (s1 - s2)^2: D = 64, shift .1, s 1 against 1.1."""
    d = 64
    got = frechet_from_moments(np.zeros(d), np.eye(d), np.full(d, 0.1), 1.21 * np.eye(d))
    assert got == pytest.approx(1.28, rel=1e-12)


def test_a_unit_shift_in_every_dimension_costs_their_number():
    d = 256
    assert frechet_from_moments(np.zeros(d), np.eye(d), np.ones(d), np.eye(d)) == pytest.approx(d, rel=1e-12)


def test_commuting_covariances(rng):
    q = linalg.qr(rng.normal(size=(20, 20)))[0]
    lam, kap = rng.uniform(0, 3, 20), rng.uniform(0, 3, 20)
    lam[:4], kap[2:7] = 0, 0  # some of both singular
    expected = np.square(np.sqrt(lam) - np.sqrt(kap)).sum()
    got = frechet_from_moments(np.zeros(20), (q * lam) @ q.T, np.zeros(20), (q * kap) @ q.T)
    # the square root of a rounded zero of 1e-16 is 1e-8
    assert got == pytest.approx(expected, abs=1e-6)


def test_two_dimensions_by_the_determinant(rng):
    """For 2 x 2, tr sqrt(M) = sqrt(tr M + 2 sqrt(det M))."""
    for _ in range(20):
        s1, s2 = random_cov(rng, 2), random_cov(rng, 2)
        product = s1 @ s2
        root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
        expected = np.trace(s1) + np.trace(s2) - 2 * root
        assert frechet_from_moments(np.zeros(2), s1, np.zeros(2), s2) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("d", [1, 3, 32])
def test_full_rank_covariances_against_the_eigenvalues_of_their_product(rng, d):
    s1, s2, mu = random_cov(rng, d), random_cov(rng, d, 2.0), rng.normal(size=d)
    root = np.sqrt(np.linalg.eigvals(s1 @ s2).real).sum()
    expected = mu @ mu + np.trace(s1) + np.trace(s2) - 2 * root
    assert frechet_from_moments(np.zeros(d), s1, mu, s2) == pytest.approx(expected, rel=1e-10)
    x, y = with_moments(rng, 4 * d + 3, np.zeros(d), s1), with_moments(rng, 7 * d + 9, mu, s2)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n1", "n2", "d"), [(90, 90, 160), (50, 200, 64), (200, 50, 64), (10, 9, 64), (2, 2, 5)])
def test_fewer_samples_than_dimensions(rng, n1, n2, d):
    """The trace term from the square root of one covariance: exact but for the roots of rounded zeros."""
    x, y = rng.normal(size=(n1, d)), 1.5 * rng.normal(size=(n2, d)) + 0.3
    s1, s2 = np.cov(x.T), np.cov(y.T)
    values, vectors = np.linalg.eigh(s1)
    half = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    root = np.sqrt(np.maximum(np.linalg.eigvalsh(half @ s2 @ half), 0)).sum()
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s1) + np.trace(s2) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-6 * d)
    assert frechet_from_moments(x.mean(0), s1, y.mean(0), s2) == pytest.approx(expected, abs=1e-6 * d)


@pytest.mark.parametrize("d", [2, 9, 200])
def test_data_on_two_lines_is_known_exactly(rng, d):
    """Rank one each: s^2 + r^2 - 2 s r |u.w|, where square roots of the covariance's eigenvalues lose eight digits."""
    u, w = (v / np.linalg.norm(v) for v in rng.normal(size=(2, d)))
    a, b = np.array([-1.0, 0.0, 1.0]), np.array([-3.0, 0.0, 3.0])  # standard deviations 1 and 3
    expected = 1 + 9 - 2 * 3 * abs(u @ w)
    assert frechet_distance(np.outer(a, u), np.outer(b, w)) == pytest.approx(expected, rel=1e-12)
    moments = (np.zeros(d), np.outer(u, u), np.zeros(d), 9 * np.outer(w, w))
    assert frechet_from_moments(*moments) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("n", "d"), [(300, 512), (1000, 64), (65, 64), (64, 64), (2, 3), (2, 1)])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_the_distance_to_oneself_is_nothing(rng, n, d, offset):
    x = rng.normal(size=(n, d)) * rng.uniform(0.1, 3, d) + offset
    assert 0 <= frechet_distance(x, x) <= 1e-12 * np.var(x, axis=0).sum()
    assert 0 <= frechet_distance(x, x[rng.permutation(n)]) <= 1e-10


def test_the_distance_to_oneself_in_absolute_terms(rng):
    x = rng.normal(size=(300, 512)) / np.sqrt(512)
    assert frechet_distance(x, x) <= 1e-12


@pytest.mark.parametrize(("n", "d"), [(40, 60), (200, 12)], ids=["singular", "regular"])
class TestInvariances:
    @pytest.fixture
    def pair(self, rng, n, d):
        return rng.normal(size=(n, d)), rng.normal(size=(n + 7, d)) @ rng.normal(size=(d, d)) / np.sqrt(d) + 0.2

    def test_row_order(self, pair, rng):
        x, y = pair
        shuffled = frechet_distance(rng.permutation(x), rng.permutation(y))
        assert shuffled == pytest.approx(frechet_distance(x, y), rel=1e-11)

    def test_rotation(self, pair, rng):
        x, y = pair
        q = linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))[0]
        assert frechet_distance(x @ q, y @ q) == pytest.approx(frechet_distance(x, y), rel=1e-11)

    def test_translation(self, pair):
        x, y = pair
        assert frechet_distance(x + 100, y + 100) == pytest.approx(frechet_distance(x, y), rel=1e-9)

    @pytest.mark.parametrize("scale", [1e-6, 7.0, 1e6])
    def test_scaling(self, pair, scale):
        x, y = pair
        assert frechet_distance(scale * x, scale * y) == pytest.approx(scale**2 * frechet_distance(x, y), rel=1e-11)

    def test_symmetry(self, pair):
        x, y = pair
        assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-12)

    def test_dead_features(self, pair):
        x, y = pair
        dead = [np.hstack([v, np.full((len(v), 3), 5.0)]) for v in (x, y)]
        assert frechet_distance(*dead) == pytest.approx(frechet_distance(x, y), rel=1e-12)
        dead[1][:, -1] = 7.0  # dead, but not of the same value: a difference of the means alone
        assert frechet_distance(*dead) == pytest.approx(frechet_distance(x, y) + 4, rel=1e-12)

    def test_duplicated_features(self, pair):
        """Each feature twice: both covariances singular, the distance exactly doubled."""
        x, y = pair
        twice = frechet_distance(np.hstack([x, x]), np.hstack([y, y]))
        assert twice == pytest.approx(2 * frechet_distance(x, y), rel=1e-11)


def test_constant_features_leave_the_means_alone():
    x, y = np.full((5, 3), 1.0), np.full((4, 3), 3.0)
    assert frechet_distance(x, y) == 12


def test_a_feature_that_is_dead_in_one_set_alone_costs_the_other_sets_variance(rng):
    """A unit of the extractor that never fires on the samples must not drop out."""
    y = with_moments(rng, 50, np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    x = with_moments(rng, 40, np.zeros(3), np.diag([1.0, 4.0, 1.0]))
    x[:, 2] = 0
    assert frechet_distance(x, y) == pytest.approx(9, rel=1e-10)
    assert frechet_distance(y, x) == pytest.approx(9, rel=1e-10)


def test_the_covariance_divides_by_n_minus_1():
    """As numpy.cov and every published FID."""
    x, y = np.array([[0.0], [2.0]]), np.array([[0.0], [2.0], [4.0]])
    # standard deviations sqrt 2 and 2, means 1 and 2
    assert frechet_distance(x, y) == pytest.approx(1 + (2 - np.sqrt(2)) ** 2, rel=1e-12)


def test_the_bias_of_a_finite_sample_is_the_published_one(rng):
    """One side exact, S = I: (D + D (D+1) / 4) / n, means plus Bures."""
    d, n, draws = 16, 1000, 100
    values = []
    for _ in range(draws):
        x = rng.normal(size=(n, d))
        values.append(frechet_from_moments(x.mean(0), np.cov(x.T), np.zeros(d), np.eye(d)))
    assert np.mean(values) == pytest.approx((d + d * (d + 1) / 4) / n, rel=0.04)


def test_float32_and_integer_features_are_measured_in_float64(rng):
    x, y = rng.normal(size=(60, 8)).astype(np.float32) + 300, rng.normal(size=(50, 8)).astype(np.float32) + 300
    assert frechet_distance(x, y) == frechet_distance(x.astype(np.float64), y.astype(np.float64))
    levels = rng.integers(0, 17, (50, 8)).astype(np.uint8)
    assert frechet_distance(levels, levels + np.uint8(1)) == pytest.approx(8, rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), r"x has shape \(1, 3\).*at least 2"),
        (np.zeros((5, 3)), np.zeros((0, 3)), r"y has shape \(0, 3\)"),
        (np.zeros(5), np.zeros((5, 1)), r"x has shape \(5,\)"),
        (np.zeros((5, 1, 3)), np.zeros((5, 3)), "x has shape"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "3 and 4 dimensions"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "x holds features that are not finite"),
        (np.zeros((5, 3)), np.full((5, 3), np.inf), "y holds features that are not finite"),
    ],
    ids=["one-row", "no-row", "vector", "maps", "dimensions", "nan", "inf"],
)
def test_features_that_make_no_distance_are_refused(x, y, message):
    with pytest.raises(DdpmkitError, match=message):
        frechet_distance(x, y)


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        ((np.zeros(3), np.eye(3), np.zeros(2), np.eye(2)), "do not go together"),
        ((np.zeros(3), np.eye(2), np.zeros(3), np.eye(3)), "do not go together"),
        ((np.zeros(2), np.eye(2), np.zeros(2), np.full((2, 2), np.nan)), "not finite"),
        ((np.zeros(2), np.diag([1.0, -1.0]), np.zeros(2), np.diag([1.0, -1.0])), "not positive semi-definite"),
    ],
    ids=["mu", "cov", "nan", "indefinite"],
)
def test_moments_that_make_no_distance_are_refused(moments, message):
    with pytest.raises(DdpmkitError, match=message):
        frechet_from_moments(*moments)


def test_an_indefinite_covariance_is_refused_even_where_the_distance_would_not_be_negative():
    with pytest.raises(DdpmkitError, match="positive semi-definite"):
        frechet_from_moments(np.zeros(2), np.diag([1.0, -0.5]), np.zeros(2), np.eye(2))
