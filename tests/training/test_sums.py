"""The forms that CUDA gets give what the CPU's give, and give it in any order."""

import pytest
import torch

from ddpmkit.training import sums
from ddpmkit.training.timesteps import Importance

CPU = torch.device("cpu")


def both(monkeypatch, function):
    """Return what a function gives on the CPU, and what it gives in the form for devices that add in any order."""
    plain = function()
    monkeypatch.setattr(sums, "in_order", lambda device: False)
    return plain, function()


def test_the_forms_of_cuda_give_the_same_sums(monkeypatch):
    torch.manual_seed(0)
    values, index = torch.rand(500), torch.randint(0, 90, (500,))

    def added():
        into = torch.arange(90.0)
        sums.add_at(into, index, values)
        return into

    for width in (1, 4, 16, 64, 256, 1024):
        with monkeypatch.context() as patch:
            torch.testing.assert_close(*both(patch, lambda width=width: sums.sums_of_blocks(values, width)))
    torch.testing.assert_close(*both(monkeypatch, added))


@pytest.mark.parametrize("T", [2, 1000, 4001])
def test_the_form_of_cuda_draws_the_same_steps(monkeypatch, T):
    torch.manual_seed(0)
    p = 0.95 * torch.rand(T).pow(6).div_(1) / torch.rand(T).pow(6).sum() + 0.05 / T
    u = torch.cat([torch.rand(100_000, dtype=torch.float64), torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)])
    plain, other = both(monkeypatch, lambda: sums.inverse_cdf(p, u))
    assert (plain != other).double().mean() < 2e-3  # a float32 cdf is off by its own rounding
    assert (plain - other).abs().max() <= 1
    shares = torch.bincount(other, minlength=T).double() / len(u)
    torch.testing.assert_close(shares, (p / p.sum()).double(), atol=5e-3, rtol=0)


def test_importance_in_the_form_of_cuda_learns_the_same(monkeypatch):
    def learned():
        choice = Importance(100, CPU)
        for step in range(40):
            t, _ = choice.draw(torch.rand(16, generator=torch.Generator().manual_seed(step), dtype=torch.float64))
            choice.learn(t, (1 + t.float()) / 50)
        return choice.probabilities()

    torch.testing.assert_close(*both(monkeypatch, learned), rtol=1e-3, atol=1e-5)


def test_the_running_sum_of_cuda_hangs_on_no_order(monkeypatch):
    monkeypatch.setattr(sums, "in_order", lambda device: False)
    p = torch.rand(1000).div_(500)
    whole = (p.double() * sums.WHOLE).long()
    backwards = whole.sum() - whole.flip(0).cumsum(0).flip(0) + whole  # the same sums, added from the other end
    assert torch.equal(whole.cumsum(0), backwards)
