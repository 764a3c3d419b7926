"""Precision, recall, density and coverage against scikit-learn, naive counts and the published value."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from ddpmkit.distances import neighbours
from ddpmkit.distances.neighbours import neighbour_metrics
from ddpmkit.errors import DdpmkitError


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def values(x, y, **options):
    return {name: m.value for name, m in neighbour_metrics(x, y, **options).items()}


def naive(x, y, k, inclusive=False):
    """By scikit-learn's trees and plain loops."""

    def radii(v):
        return NearestNeighbors(n_neighbors=k + 1, algorithm="kd_tree").fit(v).kneighbors(v)[0][:, k]

    rx, ry = radii(x), radii(y)
    inside = (lambda d, r: d <= r) if inclusive else (lambda d, r: d < r)
    d = [[np.sqrt(((a - b) ** 2).sum()) for b in x] for a in y]
    n, m = len(x), len(y)
    return {
        "precision": np.mean([any(inside(d[i][j], ry[i]) for i in range(m)) for j in range(n)]),
        "recall": np.mean([any(inside(d[i][j], rx[j]) for j in range(n)) for i in range(m)]),
        "density": sum(inside(d[i][j], ry[i]) for i in range(m) for j in range(n)) / (k * n),
        "coverage": np.mean([any(inside(d[i][j], ry[i]) for j in range(n)) for i in range(m)]),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("inclusive", [False, True])
def test_against_scikit_learn_and_loops(rng, monkeypatch, k, inclusive):
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(55, 3)) * 0.7 + 0.3
    expected = naive(x, y, k, inclusive)
    assert values(x, y, k=k, inclusive=inclusive) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(neighbours, "CHUNK", 7)
    assert values(x, y, k=k, inclusive=inclusive) == pytest.approx(expected, rel=1e-12)


def test_a_set_against_itself(rng):
    """With <, a ball holds the point itself and k - 1 neighbours: all four are 1; with <=, density is (k + 1) / k."""
    x = rng.normal(size=(300, 8))
    assert values(x, x.copy(), k=5) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}
    closed = values(x, x.copy(), k=5, inclusive=True)
    assert closed == pytest.approx({"precision": 1, "recall": 1, "density": 6 / 5, "coverage": 1}, rel=1e-12)


def test_sets_far_apart_share_nothing(rng):
    x = rng.normal(size=(50, 3))
    assert set(values(x, x + 100).values()) == {0.0}


def test_half_of_the_modes(rng):
    """Two clusters, samples from one: all precise, half recalled and covered."""
    y = rng.normal(size=(400, 4))
    y[200:] += 50
    got = values(rng.normal(size=(400, 4)), y)
    assert got["precision"] > 0.95
    assert got["recall"] == pytest.approx(0.5, abs=0.03)
    assert got["coverage"] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("n", "m"), [(300, 300), (300, 120)])
def test_coverage_of_equal_distributions_is_the_published_one(rng, n, m):
    """1 - (m-1)...(m-k) / ((n+m-1)...(n+m-k)) (Naeem et al. 2020, eq. 9, for n = m): near 1 - (m / (n + m))^k."""
    k = 3
    expected = 1 - np.prod([(m - i) / (n + m - i) for i in range(1, k + 1)])
    assert expected == pytest.approx(1 - (m / (n + m)) ** k, abs=0.005)
    found = [values(rng.normal(size=(n, 5)), rng.normal(size=(m, 5)), k=k)["coverage"] for _ in range(30)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(30))


def test_the_errors_are_the_spread_over_samples(rng):
    y = rng.normal(size=(200, 3))
    runs = [neighbour_metrics(rng.normal(size=(200, 3)) * 0.9 + 0.3, y) for _ in range(150)]
    for name, slack in (("precision", 0.2), ("density", 0.2)):
        spread = np.std([r[name].value for r in runs])
        assert np.mean([r[name].se or 0.0 for r in runs]) == pytest.approx(spread, rel=slack)
    # The jackknife's is not below the truth (Efron & Stein 1981), and not far above.
    spread = np.std([r["coverage"].value for r in runs])
    assert 0.9 * spread < np.mean([r["coverage"].se for r in runs]) < 2 * spread
    assert runs[0]["recall"].se is None


def test_the_jackknife_is_what_leaving_out_one_sample_gives(rng):
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(30, 2))
    got = neighbour_metrics(x, y, k=2)["coverage"]
    left = [neighbour_metrics(np.delete(x, j, 0), y, k=2)["coverage"].value for j in range(12)]
    expected = np.sqrt(11 / 12 * np.square(left - np.mean(left)).sum())
    assert got.se == pytest.approx(expected, rel=1e-12)


def test_the_record_names_k_and_the_inequality(rng):
    x = rng.normal(size=(20, 2))
    assert neighbour_metrics(x, x, k=4)["recall"].details == {"k": 4, "inequality": "<"}


def test_repeated_points_are_said(rng):
    """Two pixels of two values: a perfect model scores 0, since every ball is empty."""
    x, y = rng.integers(0, 2, (100, 2)).astype(float), rng.integers(0, 2, (200, 2)).astype(float)
    got = neighbour_metrics(x, y)
    for name, whose in (("precision", "reference images"), ("recall", "samples"), ("density", "reference images"),
                        ("coverage", "reference images")):  # fmt: skip
        assert got[name].value == 0
        assert f"100 % of the {whose} have 5 exact copies among them" in got[name].details["note"]
        assert got[name].se is None  # a share of 0 is not known without error
    assert "note" not in neighbour_metrics(x, y, inclusive=True)["precision"].details
    y = rng.normal(size=(200, 2))
    assert "note" not in neighbour_metrics(x, y)["precision"].details
    assert "note" in neighbour_metrics(x, y)["recall"].details


def test_a_share_of_1_has_no_error(rng):
    x = rng.normal(size=(100, 2))
    got = neighbour_metrics(x, x.copy())
    assert (got["precision"].value, got["precision"].se) == (1, None)


@pytest.mark.parametrize("k", [0, 5, 9])
def test_too_few_points_for_k(k):
    with pytest.raises(DdpmkitError, match="nearest neighbours"):
        neighbour_metrics(np.eye(5), np.eye(5), k=k)
