"""Initial weights are keyed by (seed, path, shape), keep torch's distributions, and leave constants alone."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from ddpmkit.training.initialise import initialise


class Small(nn.Module):
    """Two layers, and one more in front when asked."""

    def __init__(self, *, front: bool = False) -> None:
        super().__init__()
        if front:
            self.front = nn.Conv2d(3, 5, 3)
        self.body = nn.Linear(8, 6)
        self.table = nn.Embedding(7, 4)
        self.norm = nn.GroupNorm(2, 4)
        self.end = nn.Linear(6, 2)
        nn.init.zeros_(self.end.weight)
        nn.init.constant_(self.end.bias, 0.5)


def same(a: nn.Module, b: nn.Module) -> dict[str, bool]:
    theirs = dict(b.named_parameters())
    return {k: torch.equal(v, theirs[k]) for k, v in a.named_parameters()}


def test_a_layer_keeps_its_weights_when_another_is_added_in_front():
    plain, longer = initialise(Small, 0), initialise(lambda: Small(front=True), 0)
    assert all(same(plain, longer).values())


def test_torchs_own_weights_would_not_keep():
    # The control: built one after another from one stream, the layers behind the new one change.
    nets = []
    for front in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            nets.append(Small(front=front))
    assert not same(*nets)["body.weight"]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = initialise(Small, 0), initialise(Small, 0), initialise(Small, 1)
    assert all(same(first, again).values())
    changed = {k for k, equal in same(first, other).items() if not equal}
    assert changed == {"body.weight", "body.bias", "table.weight"}  # all that is random, nothing that is not


def test_two_layers_of_one_shape_differ():
    net = initialise(lambda: nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5)), 0)
    assert not torch.equal(net[0].weight, net[1].weight)


def test_ends_that_are_zero_stay_zero_and_constants_constant():
    net = initialise(Small, 0)
    assert torch.equal(net.end.weight, torch.zeros(2, 6))
    assert torch.equal(net.end.bias, torch.full((2,), 0.5))
    assert torch.equal(net.norm.weight, torch.ones(4))


def test_the_unets_zeroed_convolutions_are_zero():
    from ddpmkit.builtin.backbones.unet import UNet

    net = initialise(lambda: UNet(channels=4, mults=(1,)).build(in_channels=1, out_channels=1, image_size=8), 3)
    zeros = {k for k, v in net.named_parameters() if k.endswith("weight") and not v.any()}
    assert "conv_out.weight" in zeros
    assert "middle1.block.conv2.weight" in zeros
    assert "middle1.attention.proj.weight" in zeros
    assert "conv_in.weight" not in zeros


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    initialise(Small, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_random_state_does_not_enter():
    torch.manual_seed(1)
    first = initialise(Small, 0)
    torch.manual_seed(2)
    assert all(same(first, initialise(Small, 0)).values())


@pytest.mark.parametrize(
    ("build", "law"),
    [
        # torch: kaiming_uniform with a = sqrt(5) is U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
        (lambda: nn.Linear(64, 80), stats.uniform(-1 / 8, 2 / 8)),
        (lambda: nn.Conv2d(16, 40, 3), stats.uniform(-1 / 12, 2 / 12)),
        (lambda: nn.Embedding(90, 60), stats.norm(0, 1)),
    ],
    ids=["linear", "conv", "embedding"],
)
def test_the_default_distributions_are_torchs(build, law):
    weights = initialise(build, 0).weight.detach().double().numpy().ravel()
    assert stats.kstest(weights, law.cdf).pvalue > 1e-3


def filled(fill, *shape):
    class Filled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(*shape))
            with torch.no_grad():
                fill(self.weight)

    return initialise(Filled, 0).weight.detach().double().numpy()


@pytest.mark.parametrize(
    ("fill", "law"),
    [
        # fan_in = fan_out = 70: xavier's deviation is sqrt(2 / 140), kaiming's for relu sqrt(2 / 70).
        (nn.init.xavier_normal_, stats.norm(0, math.sqrt(2 / 140))),
        (lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"), stats.norm(0, math.sqrt(2 / 70))),
        (lambda w: nn.init.trunc_normal_(w, mean=0.5, std=2.0, a=-1.5, b=2.5), stats.truncnorm(-1, 1, 0.5, 2.0)),
        (lambda w: w.normal_(1.0, 0.02), stats.norm(1.0, 0.02)),
        (lambda w: w.uniform_(-2, 3).mul_(0.1), stats.uniform(-0.2, 0.5)),
        # A keyword that torch hands on by name only.
        (lambda w: w.normal_().add_(torch.ones_like(w), alpha=5.0), stats.norm(5.0, 1.0)),
    ],
    ids=["xavier", "kaiming", "truncated", "normal", "scaled", "shifted"],
)
def test_an_authors_own_fill_keeps_its_distribution(fill, law):
    assert stats.kstest(filled(fill, 70, 70).ravel(), law.cdf).pvalue > 1e-3


def test_a_fill_of_a_part_leaves_the_rest_as_the_author_set_it():
    weights = filled(lambda w: w[:3].normal_(), 6, 50)
    assert np.ptp(weights[:3]) > 1
    assert not weights[3:].any()


def test_a_part_that_is_set_to_zero_afterwards_stays_zero():
    weights = filled(lambda w: w.normal_()[3:].zero_(), 6, 50)
    assert np.ptp(weights[:3]) > 1
    assert not weights[3:].any()


def test_an_embedding_with_a_padding_row_is_keyed_too():
    def build(front):
        return nn.ModuleDict(
            {**({"front": nn.Linear(3, 3)} if front else {}), "table": nn.Embedding(5, 4, padding_idx=0)}
        )

    short, long = initialise(lambda: build(False), 0), initialise(lambda: build(True), 0)
    assert torch.equal(short["table"].weight[0], torch.zeros(4))
    assert torch.equal(short["table"].weight, long["table"].weight)


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

    net = initialise(Tied, 0)
    assert net.a.weight is net.b.weight
