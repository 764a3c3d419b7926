"""The copy check: copies, near copies, a few copies, and no false alarm over blur."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import fisher_exact

from ddpmkit import build
from ddpmkit.distances import copies, prepare, score
from ddpmkit.distances.by_class import by_class
from ddpmkit.distances.copies import copy_check, nearest
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Images


@pytest.fixture
def rng():
    return np.random.default_rng(8)


@pytest.fixture
def sets(rng):
    """Training, held-out and new points of one distribution."""
    return tuple(rng.normal(size=(n, 6)) for n in (500, 300, 400))


def test_the_nearest_against_scipy(rng, monkeypatch):
    x, points = rng.integers(0, 17, (50, 20)).astype(np.uint8), rng.integers(0, 17, (70, 20)).astype(np.uint8)
    expected = cdist(x.astype(float), points.astype(float)).min(1)
    own = cdist(points.astype(float), points.astype(float))
    np.fill_diagonal(own, np.inf)
    for chunk in (1024, 13):
        monkeypatch.setattr(copies, "CHUNK", chunk)
        np.testing.assert_allclose(nearest(x, points), expected, rtol=1e-14)
        np.testing.assert_allclose(nearest(points, points, itself=True), own.min(1), rtol=1e-14)
        assert not nearest(points[::-1], points).any()  # grey levels: a copy is at exactly 0


def test_new_points_are_clean(sets):
    train, heldout, new = sets
    got = copy_check(new, train, heldout)
    assert got.value == pytest.approx(1, abs=0.08)
    assert got.details["flag"] is False


def test_the_value_and_the_p_value_are_what_they_say(sets):
    train, heldout, new = sets
    x = np.concatenate([new, train[:20]])
    got = copy_check(x, train, heldout)
    own = cdist(heldout, heldout)
    np.fill_diagonal(own, np.inf)
    a, b = cdist(x, train).min(1), cdist(x, heldout).min(1)
    c, d = cdist(heldout, train).min(1), own.min(1)
    assert got.value == pytest.approx((a.mean() / b.mean()) / (c.mean() / d.mean()), rel=1e-6)
    near = [(a < b / 2).sum(), (c < d / 2).sum()]
    table = [[near[0], 420 - near[0]], [near[1], 300 - near[1]]]
    assert got.details["p"] == pytest.approx(fisher_exact(table, alternative="greater").pvalue)


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("blur", [0.0, 0.05])
def test_copies_and_near_copies_are_flagged(sets, rng, share, blur):
    train, heldout, new = sets
    cut = int(share * 400)
    x = np.concatenate([train[:cut] + blur * rng.normal(size=(cut, 6)), new[cut:]])
    got = copy_check(x, train, heldout)
    assert got.details["flag"] is True
    assert got.value < 1 - 0.8 * share
    assert got.details["exact"] == pytest.approx(share if blur == 0 else 0, abs=0.01)


def test_shrunk_samples_are_no_copies(sets, rng):
    """A model that draws only near the middle is close to every real point: that is no copying."""
    train, heldout, _ = sets
    got = copy_check(0.5 * rng.normal(size=(400, 6)), train, heldout)
    assert cdist(0.5 * rng.normal(size=(400, 6)), train).min(1).mean() < cdist(heldout, train).min(1).mean()
    assert got.value == pytest.approx(1, abs=0.12)
    assert got.details["flag"] is False


def test_the_error_is_the_spread_over_samples(sets, rng):
    train, heldout, _ = sets
    runs = [copy_check(rng.normal(size=(300, 6)), train, heldout) for _ in range(100)]
    assert np.mean([r.se for r in runs]) == pytest.approx(np.std([r.value for r in runs]), rel=0.2)


def test_sets_that_allow_no_check_are_refused(sets):
    train, heldout, new = sets
    with pytest.raises(DdpmkitError, match="2 held-out images"):
        copy_check(new, train, heldout[:2])
    with pytest.raises(DdpmkitError, match="held-out images are all copies"):
        copy_check(new, train, train)


def test_mirror_images_of_training_images_are_copies_where_the_training_showed_them(rng):
    train, heldout, new = (rng.integers(0, 256, (n, 1, 5, 4)).astype(np.uint8) for n in (80, 40, 30))
    images = Images(train, heldout[:1], heldout, 256, {})
    mirrored = train[:30, :, :, ::-1]
    found = {}
    for name, levels in (("mirrored", mirrored), ("plain", train[:30]), ("new", new)):
        for flip in (False, True):
            held = prepare(images, build("features", "pixels"), flip=flip)
            copy = score(levels, held, metrics=["copy"])["copy"]
            near = [r["near"] for r in by_class(held.beside(levels), np.zeros(30, int), np.zeros(40, int), fd=False)]
            assert near == [copy.details["near"]]
            found[name, flip] = copy
    assert [found["mirrored", flip].details["exact"] for flip in (False, True)] == [0, 1]
    assert not found["mirrored", False].details["flag"]
    assert found["mirrored", True].details["flag"]
    assert found["mirrored", True].value == found["plain", True].value == 0
    assert found["new", True].value == pytest.approx(1, abs=0.1)  # held-out images are looked at in the same way
    assert not found["new", True].details["flag"]
