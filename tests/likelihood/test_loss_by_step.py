"""The loss of a network by step, out of the draws of its bound; never below the optimal loss but by chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddpmkit import build
from ddpmkit.diffusion.gaussian import Coefficients, gather, q_sample
from ddpmkit.diffusion.optimal_loss import optimal_loss
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood.ask import draw
from ddpmkit.likelihood.control_variates import LinearGaussian
from ddpmkit.likelihood.draws import Draws
from ddpmkit.likelihood.loss_by_step import loss_by_step

T = 60
TABLES = tables_for(build("schedule", "cosine"), T)
C = Coefficients.of(TABLES)


def pixels(count, key):
    generator = torch.Generator().manual_seed(key)
    return torch.randint(0, 9, (count, 1, 2, 3), generator=generator) / 4 - 1


def copier(train):
    """The optimal denoiser of ``train``, as a network would be asked."""

    def predict(xt, t):
        m, s = (gather(v, t, xt).double() for v in (C.signal, C.noise))
        apart = (xt[:, None] - m[:, None] * train).square().flatten(2).sum(2)
        w = torch.softmax(-apart / (2 * s.flatten()[:, None] ** 2), 1)
        return (w @ train.double().flatten(1)).reshape(xt.shape).float(), None

    return predict


def asked(predict, images, train, **how):
    return draw(
        predict, TABLES, images=images, pilot=train, levels=9, micro_batch=64, linear=LinearGaussian.fit(train), **how
    )


def expected(found, train, images):
    """Where there were draws the optimal loss and its error, there; and the draws' own."""
    drawn = np.isfinite(found.standard_error)
    best = optimal_loss(found.log_snr[drawn], train, images, draws=4000, seed=7)
    return best.eps_loss, best.eps_standard_error, found.eps_loss[drawn], found.standard_error[drawn]


@pytest.mark.parametrize("how", [{"evaluations": 6000}, {"full": True}], ids=["sampled", "swept"])
@pytest.mark.parametrize("split", ["train", "held out"])
def test_of_the_optimal_denoiser_it_is_the_optimal_loss(how, split):
    train = pixels(24, 0)
    # Each several times: where few draws lose anything at all, few draws do not show how much they spread.
    images = (train if split == "train" else pixels(24, 1)).repeat(8, 1, 1, 1)
    draws = asked(copier(train), images, train, **how)
    found = loss_by_step(draws, TABLES)
    best, error, loss, spread = expected(found, train, images)
    assert len(best) > 0.7 * len(found.eps_loss)
    # A block is a few steps wide, and its loss no straight line: a hundredth for that.
    assert (np.abs(loss - best) < 5 * np.hypot(spread, error) + 0.01 * best + 1e-6).all()
    again = loss_by_step(Draws.from_arrays(draws.arrays(), draws.x0), TABLES)
    assert np.array_equal(again.eps_loss, found.eps_loss, equal_nan=True)


def test_no_network_that_memorises_lies_below_the_optimal_loss_by_more_than_its_error():
    train = pixels(6, 2)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(7, 96), torch.nn.SiLU(), torch.nn.Linear(96, 96), torch.nn.SiLU(),
                              torch.nn.Linear(96, 6))  # fmt: skip

    def predict(xt, t):
        told = torch.cat([xt.flatten(1), (t / T)[:, None]], 1)
        return net(told).reshape(xt.shape), None

    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(700):
        x0, t = train[torch.randint(0, 6, (64,))], torch.randint(0, T, (64,))
        hat, _ = predict(q_sample(C, x0, t, torch.randn_like(x0)), t)
        optimiser.zero_grad()
        (hat - x0).square().mean().backward()
        optimiser.step()
    found = loss_by_step(asked(predict, train, train, evaluations=8000), TABLES)
    best, error, loss, spread = expected(found, train, train)
    assert (loss > best - 4 * np.hypot(spread, error) - 0.01 * best).all()
    noisy = best > 0.1 * best.max()
    assert np.median(loss[noisy] / best[noisy]) < 1.5  # it did memorise: little is left to win


def test_the_draws_of_another_chain_are_refused():
    train = pixels(8, 0)
    draws = asked(copier(train), train, train, evaluations=2000)
    with pytest.raises(DdpmkitError, match="of a chain of 60 steps"):
        loss_by_step(draws, tables_for(build("schedule", "cosine"), 50))
