"""-log p(x | y): every image is asked about with its own label, wherever it is asked about."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.likelihood import bound, draw
from ddpmkit.likelihood.baselines import categorical_bits, categorical_bits_given_class, uniform_bits
from ddpmkit.likelihood.fit import fit_statistics
from ddpmkit.plugin.interfaces import Images
from ddpmkit.study.stages.draw import answers, split_images
from ddpmkit.study.stages.fit import Fit
from ddpmkit.study.trained import Trained

CLASSES, LEVELS = 5, 5
TABLES = tables_for(ddpmkit.build("schedule", "cosine"), 40)


def levels_of(y: np.ndarray) -> np.ndarray:
    """A world in which the class says the image: all its pixels are the level of its class."""
    return np.broadcast_to(y.astype(np.uint8)[:, None, None, None], (len(y), 1, 2, 2)).copy()


def knows(xt, t, y=None):
    """The perfect network of that world; without a label it says grey."""
    mean = torch.zeros(len(xt)) if y is None else y * (2 / (LEVELS - 1)) - 1
    return mean[:, None, None, None].expand_as(xt), None


Y = {
    split: np.random.default_rng(i).integers(0, CLASSES, n)
    for i, (split, n) in enumerate([("train", 50), ("validation", 23), ("test", 31)])
}
IMAGES = Images(*(levels_of(Y[s]) for s in ("train", "validation", "test")), LEVELS, Y)


def pixels(split: str) -> torch.Tensor:
    return ddpmkit.to_pixels(torch.from_numpy(getattr(IMAGES, split)), LEVELS)


def errors(draws) -> np.ndarray:
    """All squared errors, of the pilot, of the middle steps and of the decoder."""
    m = draws.middle
    parts = [m.clipped.total] if hasattr(m, "block") else [m.errors.clipped, m.pilot_errors.clipped]
    return np.concatenate([*parts, np.square(draws.decoder_mean - draws.x0).ravel()])


@pytest.mark.parametrize(
    "how", [{"evaluations": 1000}, {"full": True}, {"target_se": 0.5}], ids=lambda h: next(iter(h))
)
def test_the_class_says_the_image_and_nothing_is_left_to_be_coded(how):
    y = {s: torch.from_numpy(Y[s]) for s in Y}
    found = draw(
        knows, TABLES, images=pixels("test"), pilot=pixels("validation"), labels=y["test"],
        pilot_labels=y["validation"], levels=LEVELS, micro_batch=8, **how,
    )  # fmt: skip
    assert errors(found).max() < 1e-10
    sigma = fixed_log_variance(ddpmkit.build("sigma", "beta-tilde"), TABLES)
    bits = bound(found, TABLES, sigma, decoder_log_variance(TABLES), levels=LEVELS)
    assert bits.terms.middle == pytest.approx(0, abs=1e-6)
    assert bits.total == pytest.approx(bits.terms.prior + bits.terms.decoder, abs=1e-6)
    without = draw(
        knows, TABLES, images=pixels("test"), pilot=pixels("validation"), levels=LEVELS, evaluations=1000, micro_batch=8
    )
    assert bound(without, TABLES, sigma, decoder_log_variance(TABLES), levels=LEVELS).total > bits.total + 1


class Stub(Trained):
    """A trained network whose answers are known."""

    def predict(self, chain, precision="fp32"):
        return knows


def stub(classes: int | None) -> Trained:
    none: dict = dict.fromkeys(("spec", "net", "sigma", "prediction"))
    return Stub(id="0", images=IMAGES, tables=TABLES, device=torch.device("cpu"), classes=classes, **none)


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_stage_asks_of_each_image_of_its_split_with_its_label(split):
    found, count = answers(stub(CLASSES), TABLES, split, full=True, seed=0, batch=8)
    assert count == len(IMAGES.test)
    assert errors(found).max() < 1e-10
    told, _ = answers(stub(None), TABLES, split, full=True, seed=0, batch=8)
    assert errors(told).max() > 1  # a network without labels is told none


def test_the_bounded_training_images_are_those_of_before():
    from ddpmkit.randomness import permutation

    order = permutation(0, len(IMAGES.train), 0, torch.device("cpu")).numpy()
    assert np.array_equal(split_images(IMAGES, "train"), IMAGES.train[np.sort(order[: len(IMAGES.test)])])


def test_a_fit_asks_with_labels():
    found = fit_statistics(
        knows, TABLES, images=pixels("train"), labels=torch.from_numpy(Y["train"]), draws=3, levels=LEVELS, seed=0,
        micro_batch=8,
    )  # fmt: skip
    assert found["error"].max() < 1e-10


def test_the_stage_of_a_fit_puts_labels_in_the_order_of_its_images(monkeypatch):
    spec = Fit(train="0", weights="ema 0.9", batch=8, eval_precision="fp32", data="0", split="train", draws=3, seed=4)
    monkeypatch.setattr("ddpmkit.study.trained.trained_for", lambda spec, w, data: stub(CLASSES))
    w: Any = SimpleNamespace(device=torch.device("cpu"), progress=lambda done: None, should_stop=lambda: False)
    assert spec.run(w).arrays["statistics"]["error"].max() < 1e-10


def test_the_plain_model_that_is_told_the_class():
    train, test = levels_of(Y["train"]), levels_of(Y["test"])
    told = {"labels": Y["train"], "test_labels": Y["test"]}
    found = categorical_bits_given_class(train, test, LEVELS, **told)
    # Each class is one categorical of its own: N_y of N_y + K/2 at its level.
    n = np.bincount(Y["train"], minlength=CLASSES)[Y["test"]]
    assert found == pytest.approx(-np.mean(np.log2((n + 0.5) / (n + LEVELS / 2))))
    assert found < categorical_bits(train, test, LEVELS) - 1
    one = {"labels": np.zeros(len(train), np.int64), "test_labels": np.zeros(len(test), np.int64)}
    assert categorical_bits_given_class(train, test, LEVELS, **one) == categorical_bits(train, test, LEVELS)


def test_a_class_that_was_never_trained_on_is_uniform():
    train, test = levels_of(np.array([0, 0])), levels_of(np.array([3]))
    found = categorical_bits_given_class(train, test, LEVELS, labels=np.array([0, 0]), test_labels=np.array([3]))
    assert found == pytest.approx(uniform_bits(LEVELS)) == pytest.approx(math.log2(LEVELS))
