"""What is asked of an extractor of features."""

from __future__ import annotations

import builtins
from dataclasses import replace

import numpy as np

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Features, Images
from ddpmkit.testing.check import NotAsked, fail, named, unless_refused
from ddpmkit.testing.others import others
from ddpmkit.testing.process import leaves_alone


def label_and_fingerprint(features: Features) -> None:
    """Its label and its fingerprint are a line of text each, the same when asked again."""
    unless_refused(features.fingerprint)  # of weights that may not be here
    label, known = contract.label(features), contract.fingerprint(features)
    if "," in label or "=" in label:
        fail(f"features '{features.name}': its label is '{label}'", "leave out ',' and '=': it is part of a column")
    if contract.fingerprint(replace(features)) != known:
        fail(
            f"features '{features.name}': an equal one has another fingerprint", "hash what it is made of, and no id()"
        )
    if _elsewhere(features, known) != known:
        fail(
            f"features '{features.name}': its fingerprint is another one in another process",
            "use hashlib.sha256: hash() of a text begins from a random number in every process",
        )


def rows(features: Features) -> None:
    """It gives one row of finite numbers for each image, of one image too, and of black and white ones."""
    data = _data(features)
    unless_refused(lambda: features.load(data))
    extract = contract.extractor(features, data)
    extract(data.test)
    extract(data.test[:1])
    plain = np.zeros_like(data.test[:2])
    plain[1] = data.levels - 1
    extract(plain, "of a black image and a white one it gives values")


def repeats_itself(features: Features) -> None:
    """An image has the same features whatever batch it comes in, and after the extractor is loaded again."""
    data = _data(features)
    unless_refused(lambda: features.load(data))
    extract = contract.extractor(features, data)
    known = extract(data.test)
    extract.agrees(data.test, known)
    for part in (slice(5, 6), slice(9, 20), slice(None, None, -1)):  # the sixth image is darker than the others
        extract.agrees(np.ascontiguousarray(data.test[part]), known[part])
    contract.extractor(features, data).agrees(data.test, known)


def leaves_its_input(features: Features) -> None:
    """It does not write into the images that it is shown, nor into the training images."""
    data = _data(features)
    kept = data.fingerprint()
    unless_refused(lambda: features.load(data))
    contract.extractor(features, data)(data.test[:6])
    if data.fingerprint() != kept:
        fail(f"features '{features.name}' writes into its input", "compute a new array: levels.astype(numpy.float64)")


def fingerprint_tells(features: Features) -> None:
    """With another value of a parameter that changes the features, its fingerprint is another one."""
    data = _data(features)
    changed = list(others(features))
    unless_refused(lambda: features.load(data))
    if not changed:
        raise NotAsked("it has no parameter that can be changed here")
    known, print_of_it = contract.extractor(features, data)(data.test), contract.fingerprint(features)
    tried = 0
    for parameter, other in changed:
        try:
            found = contract.extractor(other, data)(data.test)
            same = contract.fingerprint(other) == print_of_it
        except DdpmkitError:  # it refuses that value for such images
            continue
        tried += 1
        if same and (found.shape != known.shape or not np.allclose(found, known)):
            fail(
                f"features '{features.name}': with another {parameter} its features are others and its fingerprint is "
                "the same",
                f"let the fingerprint hold {parameter}",
            )
    if not tried:
        raise NotAsked("it refuses every other value of its parameters")


def tells_images_apart(features: Features) -> None:
    """Other images have other features."""
    data = _data(features)
    unless_refused(lambda: features.load(data))
    found = contract.extractor(features, data)(data.test[:6])
    if bool((found == found[:1]).all()):
        fail(f"features '{features.name}' gives every image the same features", "look at its layers one by one")


def _data(features: Features) -> Images:
    shape, levels = features.made_for or ((1, 8, 8), 17)
    rng = np.random.default_rng(0)
    train, validation, test = (rng.integers(0, levels, (n, *shape), dtype=np.uint8) for n in (64, 2, 24))
    test[5] //= 2
    return Images(train, validation, test, levels, {})


def leaves_the_process_alone(features: Features) -> None:
    """It seeds no global generator, and changes no setting of the process."""
    data = _data(features)
    unless_refused(lambda: features.load(data))
    leaves_alone(features, lambda: (features.fingerprint(), features.load(data)(data.test[:2])))


def _elsewhere(features: Features, known: str) -> str:
    """Its fingerprint where hash() of a text is another number, as in another process.

    What raises there is at odds with itself and tells nothing: a dict knows a key by the number that it had.
    """
    true = builtins.hash
    builtins.hash = lambda value: true(value) ^ 0x5EED if isinstance(value, (str, bytes)) else true(value)
    try:
        return contract.fingerprint(features)
    except DdpmkitError:
        return known
    finally:
        builtins.hash = true


CHECKS = named(
    label_and_fingerprint,
    rows,
    repeats_itself,
    leaves_its_input,
    fingerprint_tells,
    tells_images_apart,
    leaves_the_process_alone,
)
