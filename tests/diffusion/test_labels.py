"""Labels: how many classes, which are dropped, and which class a sample is of, keyed by counters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddpmkit.diffusion.labels import Shown, classes_of, labels_of_samples

LABELS = np.array([0] * 10 + [1] * 60 + [4] * 30)  # classes 2 and 3 do not occur
N = 20_000


def test_classes_are_one_more_than_the_largest_label_of_any_split():
    assert classes_of({}) == 0
    assert classes_of({"train": np.array([0, 3]), "validation": np.array([], np.int64), "test": np.array([5])}) == 6


def test_the_share_that_is_dropped_is_the_one_that_was_asked_for_and_says_none():
    shown = Shown.of(torch.from_numpy(LABELS), 5, 0.1, seed=0)
    number = torch.arange(N)
    index = number % len(LABELS)
    found = shown.at(index, number)
    dropped = found == 5
    assert abs(float(dropped.float().mean()) - 0.1) < 4 * (0.1 * 0.9 / N) ** 0.5
    assert torch.equal(found[~dropped], torch.from_numpy(LABELS)[index][~dropped])
    by_class = [float(dropped[torch.from_numpy(LABELS)[index] == c].float().mean()) for c in (0, 1, 4)]
    assert max(by_class) - min(by_class) < 0.03  # of every class alike


def test_what_is_dropped_hangs_on_the_seed_and_the_number_alone():
    shown = Shown.of(torch.from_numpy(LABELS), 5, 0.3, seed=0)
    number = torch.arange(400)
    whole = shown.at(number % 100, number)
    for part in number.split(7):
        assert torch.equal(shown.at(part % 100, part), whole[part])
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shown.at(order % 100, order), whole[order])
    assert not torch.equal(Shown.of(torch.from_numpy(LABELS), 5, 0.3, seed=1).at(number % 100, number), whole)
    assert torch.equal(Shown.of(torch.from_numpy(LABELS), 5, 0.0, seed=1).at(number % 100, number),
                       torch.from_numpy(LABELS)[number % 100])  # fmt: skip


def test_labels_of_samples_come_in_the_shares_of_the_training_images():
    found = labels_of_samples("data", LABELS, 5, "0.0")(torch.arange(N))
    assert found.dtype == torch.int64
    shares = torch.bincount(found, minlength=5).double() / N
    assert float((shares - torch.tensor([0.1, 0.6, 0.0, 0.0, 0.3])).abs().max()) < 4 * (0.24 / N) ** 0.5
    assert shares[2] == shares[3] == 0  # a class that does not occur is never asked for


def test_balanced_labels_take_the_classes_that_occur_in_turn():
    found = labels_of_samples("balanced", LABELS, 5, "0.0")(torch.arange(7))
    assert found.tolist() == [0, 1, 4, 0, 1, 4, 0]


@pytest.mark.parametrize("which", ["data", "balanced"])
def test_a_samples_label_depends_on_the_seed_and_its_index_alone(which):
    label_of = labels_of_samples(which, LABELS, 5, "1.2")
    whole = label_of(torch.arange(100))
    for size in (1, 7, 64):
        assert torch.equal(torch.cat([label_of(part) for part in torch.arange(100).split(size)]), whole)
    assert torch.equal(label_of(torch.tensor([99, 3])), whole[[99, 3]])
    again = labels_of_samples(which, LABELS, 5, "1.3")(torch.arange(100))
    assert torch.equal(again, whole) == (which == "balanced")


def test_the_largest_uniform_number_is_the_last_class_that_occurs(monkeypatch):
    from ddpmkit.diffusion import labels

    monkeypatch.setattr(labels, "uniform", lambda key, index: torch.full(index.shape, 1 - 2.0**-53).double())
    assert labels_of_samples("data", LABELS, 5, 0)(torch.arange(2)).tolist() == [4, 4]
    monkeypatch.setattr(labels, "uniform", lambda key, index: torch.zeros(index.shape).double())
    assert labels_of_samples("data", np.array([1, 1, 4]), 5, 0)(torch.arange(2)).tolist() == [1, 1]
