"""What is asked of an extractor of features."""

from __future__ import annotations

import numpy as np

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Features, Images
from ddpmkit.testing.check import fail, named, unless_refused


def label_and_fingerprint(features: Features) -> None:
    """Its label and its fingerprint are a line of text each, the same when asked again."""
    unless_refused(features.fingerprint)  # of weights that may not be here
    contract.label(features)
    contract.fingerprint(features)


def rows(features: Features) -> None:
    """It gives one row of finite numbers for each image."""
    data = _data(features)
    unless_refused(lambda: features.load(data))
    contract.extractor(features, data)(data.test)


def repeats_itself(features: Features) -> None:
    """An image has the same features whatever batch it comes in, and after the extractor is loaded again."""
    data = _data(features)
    unless_refused(lambda: features.load(data))
    extract = contract.extractor(features, data)
    known = extract(data.test)
    extract.agrees(data.test, known)
    contract.extractor(features, data).agrees(data.test, known)


def tells_images_apart(features: Features) -> None:
    """Other images have other features."""
    data = _data(features)
    unless_refused(lambda: features.load(data))
    found = contract.extractor(features, data)(data.test)
    if bool((found == found[:1]).all()):
        fail(f"features '{features.name}' gives every image the same features", "look at its layers one by one")


def _data(features: Features) -> Images:
    shape, levels = features.made_for or ((1, 8, 8), 17)
    rng = np.random.default_rng(0)
    train, validation, test = (rng.integers(0, levels, (n, *shape), dtype=np.uint8) for n in (64, 2, 24))
    return Images(train, validation, test, levels, {})


CHECKS = named(label_and_fingerprint, rows, repeats_itself, tells_images_apart)
