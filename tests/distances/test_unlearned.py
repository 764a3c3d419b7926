"""Images that nobody learnt: what they are, and that scores tell them from real ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ddpmkit.distances.floors import prepare
from ddpmkit.distances.named import built_in
from ddpmkit.distances.unlearned import score_unlearned, unlearned_images
from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.plugin.interfaces import Images
from ddpmkit.plugin.registry import Registry

SHAPE = (2, 2, 3)


@pytest.fixture(scope="module")
def images() -> Images:
    """Correlated images well inside of their scale, so that nothing is clipped; 256 levels: little is rounded."""
    rng = np.random.default_rng(0)
    drawn = 128 + (rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12))).reshape(300, *SHAPE) * 8
    levels = np.round(drawn).astype(np.uint8)
    return Images(levels[:200], levels[:0], levels[200:], 256, {})


def test_what_each_of_them_is(images: Images) -> None:
    drawn = unlearned_images(images, 4000)
    assert list(drawn) == ["pure noise", "mean image", "Gaussian"]
    for levels in drawn.values():
        assert levels.shape == (4000, *SHAPE)
        assert levels.dtype == np.uint8
    train = images.train.reshape(200, -1).astype(float)
    np.testing.assert_array_equal(drawn["mean image"].reshape(4000, -1), np.round(train.mean(0))[None].repeat(4000, 0))
    gaussian = drawn["Gaussian"].reshape(4000, -1).astype(float)
    cov = np.cov(train.T)
    scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    np.testing.assert_allclose(gaussian.mean(0), train.mean(0), atol=5 * np.sqrt(cov.max() / 4000))
    assert np.abs(np.cov(gaussian.T) - cov).max() / scale.max() < 0.1
    # N(0, 1) beyond 1 on either side is clipped: 15.9 % at each end; inside it is spread evenly about the middle.
    noise = drawn["pure noise"]
    assert [(noise == end).mean() for end in (0, 255)] == pytest.approx([0.159, 0.159], abs=0.01)
    assert noise.mean() == pytest.approx(127.5, abs=1.5)


def test_more_of_them_begin_with_the_same(images: Images) -> None:
    few, many = unlearned_images(images, 3), unlearned_images(images, 9)
    for name in ("pure noise", "mean image"):
        np.testing.assert_array_equal(few[name], many[name][:3])
    again = unlearned_images(images, 9)
    assert all(np.array_equal(again[name], many[name]) for name in many)


def test_one_training_image_has_no_spread(images: Images) -> None:
    alone = Images(images.train[:1], images.train[:0], images.test, 256, {})
    np.testing.assert_array_equal(unlearned_images(alone, 2)["Gaussian"], images.train[[0, 0]])


@pytest.mark.filterwarnings("error")
def test_each_metric_that_ranks_tells_noise_from_real_images(images: Images) -> None:
    metrics = {name: metric for name, metric in built_in().items() if name != "c2st"}
    reference = prepare(images, Registry(installed=False).build("features", "pixels"), floor=60, metrics=metrics)
    found = score_unlearned(images, reference, built_in(), 60)
    assert set(found["pure noise"]) - {"fd-debiased"} == {
        "fd",
        "kid",
        "precision",
        "recall",
        "density",
        "coverage",
        "sw",
    }  # no test
    real = {name: one["value"] for name, one in reference.floor.items()}
    for name in ("fd", "kid", "sw"):
        assert found["pure noise"][name] > 20 * max(real[name], 0.01)
        assert found["Gaussian"][name] < found["mean image"][name] < found["pure noise"][name]
    assert found["pure noise"]["density"] == found["pure noise"]["coverage"] == 0 < real["coverage"]


@pytest.mark.parametrize("code", [Exit.USAGE, Exit.FAILED])
def test_what_has_no_features_costs_its_own_row_alone(images: Images, code: Exit) -> None:
    reference = prepare(images, Registry(installed=False).build("features", "pixels"))
    extract = reference.extract

    def picky(levels: Any, what: str) -> Any:
        if (levels == levels[:1]).all():
            raise DdpmkitError(f"{what} that are not finite", code=code)
        assert extract is not None
        return extract(levels, what)

    choosy: Any = replace(reference, extract=picky)  # type: ignore[arg-type] # all of an extractor that is asked for
    metrics = {"fd": built_in()["fd"]}
    if code == Exit.FAILED:  # of the machine, perhaps: nothing is kept
        with pytest.raises(DdpmkitError):
            score_unlearned(images, choosy, metrics, 20)
    else:
        assert list(score_unlearned(images, choosy, metrics, 20)) == ["pure noise", "Gaussian"]
