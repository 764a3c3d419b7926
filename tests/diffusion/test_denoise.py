"""One place reads a network: what it is shown, which part of its answer is what, and what that means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ddpmkit
from ddpmkit.diffusion import gaussian
from ddpmkit.diffusion.denoise import Denoiser, parts, predictor
from ddpmkit.diffusion.gaussian import Coefficients, q_sample
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.likelihood.probability_flow import from_network

CPU = torch.device("cpu")
TABLES = tables_for(ddpmkit.build("schedule", "linear"), 50)
EPS = ddpmkit.build("prediction", "eps")
T = torch.tensor([0, 10, 49])
X = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


class Told(nn.Module):
    """Keeps what it is told; answers zeros, and ones in a second half where it has one."""

    def __init__(self, halves: int = 1) -> None:
        super().__init__()
        self.halves, self.told = halves, ()

    def forward(self, x, t, y=None):
        self.told = x, t, y
        return torch.cat([torch.zeros_like(x), torch.ones_like(x)][: self.halves], dim=1)


class WithoutLabels(nn.Module):
    def forward(self, x, t):
        return torch.zeros_like(x)


def test_a_label_reaches_the_network_and_none_is_not_told():
    net, y = Told(), torch.tensor([3, 1, 4])
    predict = predictor(net, TABLES, EPS, CPU)
    predict(X, T, y)
    assert net.told[2] is y
    predict(X, T)
    assert net.told[2] is None
    predictor(WithoutLabels(), TABLES, EPS, CPU)(X, T)  # a network that knows no labels need not take any


def test_the_answer_of_a_learned_sigma_has_two_parts_and_each_its_meaning():
    sigma = ddpmkit.build("sigma", "learned-range")
    x0_hat, log_sigma2 = predictor(Told(2), TABLES, EPS, CPU, sigma)(X, T)
    high = sigma.log_bounds(TABLES)[1]
    np.testing.assert_allclose(log_sigma2[:, 0, 0, 0], high[T], rtol=1e-6)  # its second half says: all the way up
    assert log_sigma2.shape == X.shape
    signal = torch.from_numpy(TABLES.signal).float()[T].reshape(3, 1, 1, 1)
    torch.testing.assert_close(x0_hat, X / signal)
    assert predictor(Told(), TABLES, EPS, CPU, ddpmkit.build("sigma", "beta"))(X, T)[1] is None


def test_who_has_one_part_has_no_other():
    assert parts(X, learned=False) == (X, None)
    first, second = parts(X, learned=True)
    assert torch.equal(torch.cat([first, second], 1), X)
    assert Denoiser.of(TABLES, EPS).log_variance(T, None) is None


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("learned", [False, True])
def test_at_a_whole_step_the_probability_flow_reads_what_the_sampler_reads(prediction, learned):
    asked, sigma = (
        ddpmkit.build("prediction", prediction),
        ddpmkit.build("sigma", "learned-range" if learned else "beta"),
    )

    class Some(nn.Module):
        def forward(self, x, t, y=None):
            out = 0.3 * x + t.reshape(-1, 1, 1, 1) / 1000
            return torch.cat([out, out], 1) if learned else out

    walk = predictor(Some(), TABLES, asked, CPU, sigma)(X, T)[0]
    flow = from_network(Some(), TABLES, asked, learned=learned)(X, T.double())
    torch.testing.assert_close(flow, walk, rtol=1e-5, atol=1e-5)


def test_a_factor_is_gathered_when_it_is_asked_for_and_once(monkeypatch):
    asked = []
    original = gaussian.gather

    def counted(table, t, like):
        asked.append(table)
        return original(table, t, like)

    monkeypatch.setattr(gaussian, "gather", counted)
    c = Coefficients.of(TABLES)
    at = c.at(T, X)
    assert asked == []
    EPS.target(at, X, X, X)
    assert asked == []  # what is trained by default needs none
    assert at.signal is at.signal
    assert len(asked) == 1


def test_the_round_trip_through_a_network_that_knows_the_answer():
    for name in ("eps", "x0", "v", "mu"):
        asked = ddpmkit.build("prediction", name)
        c = Coefficients.of(TABLES)
        eps = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
        xt = q_sample(c, X, T, eps)

        class Knows(nn.Module):
            def forward(self, x, t, asked=asked, c=c, eps=eps, xt=xt):
                return asked.target(c.at(T, X), X, eps, xt)

        torch.testing.assert_close(predictor(Knows(), TABLES, asked, CPU)(xt, T)[0], X, rtol=1e-3, atol=1e-3)
