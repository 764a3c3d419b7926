"""A backbone that can't be trained with labels is told so before anything runs, and the built-in ones can be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import ddpmkit
from ddpmkit.plugin import contract
from ddpmkit.plugin.registry import Registry

K, SHAPE = 5, (1, 8, 8)


class Net(nn.Module):
    """Takes labels as it is told to; its last layer starts at zero, as that of many networks."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.label, self.first = how, nn.Embedding(K + 1, 4), nn.Conv2d(1, 4, 1)
        self.last = nn.Conv2d(4, 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x, t, y=None):
        h = self.first(x)
        if self.how == "none is nothing" and y is None:
            return self.last(h)  # and not the row that training shows
        if self.how == "takes no y" and y is not None:
            raise TypeError("forward() takes 3 positional arguments but 4 were given")
        if self.how == "has a label or none":
            return self.last(h + (y is not None and y < K).float()[:, None, None, None] if y is not None else h)
        if self.how == "has K rows" and y is not None:
            return self.last(h + nn.functional.embedding(y, self.label.weight[:K])[:, :, None, None])
        if self.how != "ignores":
            y = torch.full((len(x),), K) if y is None else y
            h = h + self.label(y)[:, :, None, None]
        return self.last(h)


def why(net: nn.Module) -> str | None:
    odd: Any = SimpleNamespace(name="odd")  # of a backbone only its name is asked
    return contract.why_no_labels(odd, net, SHAPE, K)


def test_a_network_that_looks_at_its_labels_is_fine_though_its_last_layer_is_zero():
    assert why(Net("looks")) is None


def test_a_network_that_ignores_y_is_named():
    assert why(Net("ignores")) == (
        "backbone 'odd' gives the same answer for every label y, so it can't be trained with labels"
    )


def test_a_network_whose_none_is_not_the_label_that_says_none_is_named():
    found = why(Net("none is nothing"))
    assert found is not None
    assert "another answer without y than for y = 5" in found


def test_a_network_that_sees_only_whether_there_is_a_label_tells_no_class_from_another():
    assert "the same answer for every label y" in str(why(Net("has a label or none")))


@pytest.mark.parametrize(("how", "cause"), [("has K rows", "index out of range"), ("takes no y", "TypeError: forward")])
def test_a_network_that_fails_with_labels_is_left_out_and_told_what_they_are(how, cause):
    reason = str(why(Net(how)))
    assert reason.startswith("backbone 'odd' failed: ")
    assert cause in reason
    assert reason.endswith("it was told labels up to y = 5, which says none: that is one row more")


@pytest.mark.parametrize("name", [e.name for e in Registry(installed=False).entries("backbone")])
@pytest.mark.parametrize("outputs", [1, 2])
def test_built_in_backbones_can_be_trained_with_labels(name, outputs):
    backbone = ddpmkit.build("backbone", name)
    net = contract.network(backbone, in_channels=1, out_channels=outputs, image_size=8, num_classes=K)
    assert contract.why_no_labels(backbone, net, SHAPE, K) is None
    with pytest.raises(IndexError):  # K + 1 rows, and no more
        net(torch.zeros(1, *SHAPE), torch.zeros(1), torch.tensor([K + 1]))


def test_without_classes_nothing_of_a_network_changes():
    backbone = ddpmkit.build("backbone", "unet:channels=4:mults=1")
    plain = contract.network(backbone, in_channels=1, out_channels=1, image_size=8)
    assert not [name for name, _ in plain.named_parameters() if "label" in name]
