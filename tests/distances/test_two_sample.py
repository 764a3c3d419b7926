"""The classifier two-sample test: its level under no difference, its power, its AUC."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from ddpmkit.distances import two_sample
from ddpmkit.distances.two_sample import two_sample_test
from ddpmkit.errors import DdpmkitError


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(6)


@pytest.mark.long
def test_equal_distributions_are_seldom_told_apart(rng, monkeypatch):
    """The p-value is valid: below 0.1 in at most a tenth of 60 repetitions, and four standard errors."""
    monkeypatch.setattr(two_sample, "TREES", 10)
    p = [two_sample_test(rng.normal(size=(60, 3)), rng.normal(size=(60, 3))).details["p"] for _ in range(60)]
    assert np.mean(np.array(p) < 0.1) <= 0.1 + 4 * np.sqrt(0.09 / 60)


@pytest.mark.long
def test_a_small_shift_is_found_and_the_auc_is_that_of_the_best_classifier(rng):
    x, y = rng.normal(size=(600, 2)), rng.normal(size=(600, 2))
    x[:, 0] += 1.0
    got = two_sample_test(x, y)
    assert got.details["p"] < 1e-6
    # The best one looks at the first feature: P(x0 > y0) = Phi(1 / sqrt 2) = 0.760; trees come near from below.
    best = roc_auc_score(np.repeat([1, 0], 600), np.concatenate([x, y])[:, 0])
    assert best - 0.08 < got.value < best + 0.01


def test_what_can_be_separated_is(rng):
    x = rng.normal(size=(100, 2))
    got = two_sample_test(x + 10, x)
    assert got.value == 1
    assert got.details["p"] < 1e-5


@pytest.mark.long
def test_copies_of_the_reference_are_far_below_one_half(rng):
    x = rng.normal(size=(300, 4))
    got = two_sample_test(x, x)
    assert got.value < 0.4
    assert got.details["p"] == 1


def test_too_few_rows():
    with pytest.raises(DdpmkitError, match="needs 10 of each"):
        two_sample_test(np.zeros((9, 2)), np.zeros((50, 2)))


def test_of_many_rows_some_are_drawn_and_not_the_first(rng, monkeypatch):
    """Sorted sets: their first rows differ, the sets do not."""
    monkeypatch.setattr(two_sample, "MOST", 200)
    monkeypatch.setattr(two_sample, "TREES", 10)
    x, y = (rng.normal(size=(2000, 2)) for _ in range(2))
    got = two_sample_test(x[np.argsort(x[:, 0])], y[np.argsort(-y[:, 0])])
    assert got.details["rows"] == [200, 200]
    assert got.value == pytest.approx(0.5, abs=0.12)
