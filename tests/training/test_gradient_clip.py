"""The clip that is relative to a running norm: its rule, by hand, and that no scale of a loss matters to it."""

import math

import pytest
import torch
from torch import nn

from ddpmkit.training.gradient_clip import MEMORY, GradientClip

CPU = torch.device("cpu")


def clipped(norms, *, ratio, norm=1.0, scale=1.0):
    """The norms that gradients of these norms have after the clip."""
    clip, out = GradientClip(norm, ratio, CPU), []
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(1))]
    for n in norms:
        for p in parameters[:2]:  # the last has no gradient
            p.grad = torch.full(p.shape, scale * n / math.sqrt(7))
        assert clip.clip(parameters) == pytest.approx(scale * n)
        out.append(math.sqrt(sum(float(p.grad.square().sum()) for p in parameters[:2])))
    return out


def test_the_rule_by_hand():
    norms, ratio = [2.0, 1.0, 10.0, 10.0, 0.5, 0.0, 8.0], 1.5
    mean = weight = 0.0
    expected = []
    for n in norms:
        limit = ratio * mean / weight if weight else math.inf
        expected.append(min(n, limit))
        mean = MEMORY * mean + (1 - MEMORY) * expected[-1]
        weight = MEMORY * weight + (1 - MEMORY) * (n > 0)
    assert clipped(norms, ratio=ratio) == pytest.approx(expected, rel=1e-5)
    assert expected[:2] == [2.0, 1.0]
    assert expected[2] == pytest.approx(1.5 * 1.4949, rel=1e-3)  # near the mean of both, the later one a little heavier


def test_no_scale_of_the_loss_matters_where_a_fixed_norm_knows_it():
    norms = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]
    relative, fixed = (clipped(norms, ratio=r) for r in (1.2, None))
    assert [n / 2.0**-40 for n in clipped(norms, ratio=1.2, scale=2.0**-40)] == pytest.approx(relative, rel=1e-6)
    assert fixed == pytest.approx([1.0] * 6, rel=1e-5)
    assert clipped(norms, ratio=None, scale=2.0**-4) != pytest.approx([f / 2**4 for f in fixed], rel=0.1)


def test_gradients_of_zero_stay_zero_and_do_not_make_the_first_one_vanish():
    assert clipped([0.0, 0.0, 3.0, 0.0, 3.0], ratio=2.0) == pytest.approx([0.0, 0.0, 3.0, 0.0, 3.0])


def test_a_fixed_norm_keeps_no_state():
    assert GradientClip(1.0, None, CPU).state() == {}
