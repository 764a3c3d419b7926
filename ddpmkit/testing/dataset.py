"""What is asked of a data set."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Dataset, Images, Outline
from ddpmkit.testing import splits
from ddpmkit.testing.check import NotAsked, fail, named, unless_refused
from ddpmkit.testing.process import leaves_alone


def images(dataset: Dataset) -> None:
    """It gives uint8 levels (N, C, H, W) below K in three splits, and labels that fit."""
    unless_refused(dataset.load)
    contract.images(dataset)


def splits_are_apart(dataset: Dataset) -> None:
    """No image stands in two splits, unless images are so few kinds that they must."""
    if problem := splits.overlap(contract.images(dataset)):
        fail(f"dataset '{dataset.name}': {problem}", "cut one permutation of all images into splits")


def levels_and_axes(dataset: Dataset) -> None:
    """Its images use the levels that it says, alike in all splits, and their channels come first."""
    loaded = contract.images(dataset)
    if problem := splits.odd_axes(loaded):
        fail(
            f"dataset '{dataset.name}': {problem}", "give (N, C, H, W); ddpmkit.channels_first puts axes in that order"
        )
    if problem := splits.odd_levels(loaded):
        fail(
            f"dataset '{dataset.name}': {problem}",
            "give level k for the pixel -1 + 2 k / (K - 1), made in one way for all splits",
        )


def labels(dataset: Dataset) -> None:
    """Its labels count from 0 and belong to its images, in every split, and each has a name where any has."""
    loaded = contract.images(dataset)
    if problem := splits.odd_classes(loaded):
        fail(f"dataset '{dataset.name}': {problem}", "give classes one name a label, in the order of the labels")
    if not loaded.labels:
        raise NotAsked("it has no labels")
    for problem in splits.odd_labels(loaded):
        fail(f"dataset '{dataset.name}': {problem}", "permute and cut images and labels by the same indices")


def fingerprint(dataset: Dataset) -> None:
    """Its fingerprint stays the same, and is that of the images that it loads."""
    first, again = dataset.fingerprint(), dataset.fingerprint()
    loaded = contract.images(dataset).fingerprint()
    if first != again:
        fail(
            f"dataset '{dataset.name}': its fingerprint moves, {first[:12]} and then {again[:12]}",
            "load the same images every time: a split from a fixed seed, files in sorted order",
        )
    if first != loaded:
        fail(
            f"dataset '{dataset.name}': its fingerprint is not that of the images it loads, {first[:12]} and "
            f"{loaded[:12]}",
            "leave fingerprint out; the inherited one hashes the images",
        )


def loads_the_same(dataset: Dataset) -> None:
    """Loaded again it gives the same images, whatever anybody did to the global generators."""
    import random

    np.random.seed(1)
    random.seed(1)
    first = contract.images(dataset).fingerprint()
    np.random.seed(2)
    random.seed(2)
    contract.images(dataset, again=True)
    if contract.images(dataset).fingerprint() != first:
        fail(f"dataset '{dataset.name}' gives other images when loaded again", "draw from numpy.random.default_rng(0)")


def stamp(dataset: Dataset) -> None:
    """Its stamp, if it gives one, is JSON and the same when asked again."""
    first, again = contract.stamp(dataset), contract.stamp(dataset)
    if first is None:
        raise NotAsked("it gives no stamp")
    if first != again:
        fail(f"dataset '{dataset.name}': its stamp moves", "give what changes only where the files do, as file_stamp")


def outline(dataset: Dataset) -> None:
    """What it says of its images unread, if it does, is so."""
    said = contract.outline(dataset)
    if said is None:
        raise NotAsked("it says nothing of its images unread")
    true, claimed = asdict(_outline(contract.images(dataset))), asdict(said)
    for key, value in true.items():
        if not (np.isclose(claimed[key], value) if key == "second_moment" else claimed[key] == value):
            fail(
                f"dataset '{dataset.name}': its outline says {key} = {claimed[key]}, and it is {value}",
                "correct the outline, or leave it out",
            )


def _outline(found: Images) -> Outline:
    pixels = -1 + 2 * found.train.astype(np.float64) / (found.levels - 1)
    return Outline(
        fingerprint=found.fingerprint(),
        shape=(found.train.shape[1], found.train.shape[2], found.train.shape[3]),
        counts=(len(found.train), len(found.validation), len(found.test)),
        levels=found.levels,
        classes=max((int(v.max()) + 1 for v in found.labels.values()), default=0),
        least=int(found.train.min()),
        most=int(found.train.max()),
        second_moment=float((pixels**2).mean()),
    )


def leaves_the_process_alone(dataset: Dataset) -> None:
    """It seeds no global generator, and changes no setting of the process."""
    leaves_alone(dataset, dataset.load)


CHECKS = named(
    images,
    splits_are_apart,
    levels_and_axes,
    labels,
    fingerprint,
    loads_the_same,
    stamp,
    outline,
    leaves_the_process_alone,
)
