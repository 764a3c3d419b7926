"""q(x_t | x_0) by its moments, and what is predicted, eps, x0, v and mu, against its definition."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from ddpmkit.builtin.predictions.eps import Eps
from ddpmkit.builtin.predictions.mu import Mu
from ddpmkit.builtin.predictions.v import V
from ddpmkit.builtin.predictions.x0 import X0
from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.diffusion.gaussian import Coefficients, eps_from_x0, gather, q_sample
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.plugin.interfaces import Schedule
from ddpmkit.randomness import normal, stream_key

torch.set_num_threads(1)


@dataclass(frozen=True)
class Walk(Schedule):
    """The plain random walk, x_t = x_{t-1} + eps_t / 10."""

    name = "walk"

    def steps(self, T):
        return np.ones(T), np.full(T, 0.01)


def exact(tables):
    """Coefficients that were never rounded to float32, so that a formula is tested and not its rounding."""
    return replace(
        Coefficients.of(tables),
        signal=torch.from_numpy(tables.signal),
        noise=torch.from_numpy(np.sqrt(tables.noise2)),
        posterior_x0=torch.from_numpy(tables.full_posterior_x0),
        posterior_xt=torch.from_numpy(tables.full_posterior_xt),
    )


@pytest.fixture
def batch():
    """x0, eps (7, 1, 3, 2) and one step for each image, the ends among them."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand((7, 1, 3, 2), generator=generator, dtype=torch.float64) * 2 - 1
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    return x0, eps, torch.tensor([0, 1, 10, 100, 500, 998, 999])


def test_gather_gives_each_image_its_own_step():
    """A wrong shape would broadcast along the width where the batch is as wide as the image."""
    out = gather(torch.tensor([10.0, 20.0, 30.0]), torch.tensor([2, 0]), torch.zeros(2, 1, 2, 2))
    assert out.shape == (2, 1, 1, 1)
    assert out.flatten().tolist() == [30, 10]


@pytest.mark.parametrize("t", [0, 30, 250, 999])
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Walk()], ids=lambda s: s.name)
def test_q_sample_has_the_mean_and_the_variance_of_the_chain_walked_step_by_step(schedule, t):
    a, b2 = schedule.steps(1000)
    signal, variance = 1.0, 0.0
    for s in range(t + 1):
        signal, variance = a[s] * signal, a[s] ** 2 * variance + b2[s]
    n, x0 = 200_000, 0.6
    eps = normal(stream_key(0, "noise"), torch.arange(n), (1, 1, 1), t)
    xt = q_sample(Coefficients.of(tables_for(schedule, 1000)), torch.full_like(eps, x0), torch.full((n,), t), eps)
    xt = xt.double()
    assert float(xt.mean()) == pytest.approx(signal * x0, abs=5 * (variance / n) ** 0.5 + 1e-6)
    assert float(xt.var()) == pytest.approx(variance, rel=5 * (2 / n) ** 0.5)


def test_q_sample_is_ho_equation_4(batch):
    x0, eps, t = batch
    alpha_bar = torch.from_numpy(np.cumprod(1 - Linear().betas(1000)))[t].reshape(7, 1, 1, 1)
    expected = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps
    torch.testing.assert_close(q_sample(exact(tables_for(Linear(), 1000)), x0, t, eps), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=lambda s: s.name)
@pytest.mark.parametrize("prediction", [Eps(), X0(), V(), Mu()], ids=str)
def test_the_true_target_gives_back_x0_and_eps(batch, schedule, prediction):
    x0, eps, t = batch
    c = exact(tables_for(schedule, 1000))
    xt = q_sample(c, x0, t, eps)
    at = c.at(t, x0)
    hat = prediction.x0hat(at, xt, prediction.target(at, x0, eps, xt))
    # eps / signal is 2e4 at the last cosine step: nine digits are left of sixteen
    torch.testing.assert_close(hat, x0, rtol=0, atol=1e-9)
    torch.testing.assert_close(eps_from_x0(c, xt, t, hat), eps, rtol=0, atol=1e-9)


@pytest.mark.parametrize("prediction", [Eps(), X0(), Mu()], ids=str)
def test_conversions_off_the_variance_preserving_family(batch, prediction):
    x0, eps, t = batch
    c = exact(tables_for(Walk(), 1000))
    xt = q_sample(c, x0, t, eps)
    at = c.at(t, x0)
    hat = prediction.x0hat(at, xt, prediction.target(at, x0, eps, xt))
    torch.testing.assert_close(hat, x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(eps_from_x0(c, xt, t, hat), eps, rtol=0, atol=1e-10)


def test_a_wrong_output_means_the_x0_that_the_definition_says(batch):
    """The round trip alone would forgive a sign that is wrong twice."""
    x0, eps, t = batch
    beta = Linear().betas(1000)
    alpha_bar = torch.from_numpy(np.cumprod(1 - beta))[t].reshape(7, 1, 1, 1)
    c = exact(tables_for(Linear(), 1000))
    xt, out = q_sample(c, x0, t, eps), torch.full_like(x0, 0.3)
    naive = {
        Eps(): (xt - (1 - alpha_bar).sqrt() * out) / alpha_bar.sqrt(),
        X0(): out,
        V(): alpha_bar.sqrt() * xt - (1 - alpha_bar).sqrt() * out,
    }
    for prediction, expected in naive.items():
        torch.testing.assert_close(prediction.x0hat(c.at(t, xt), xt, out), expected, rtol=1e-9, atol=1e-9)


def test_mu_is_the_mean_of_the_posterior(batch):
    """Ho et al. 2020, eq. 7, from the betas alone."""
    x0, eps, t = batch
    beta = Linear().betas(1000)
    ab = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], ab[:-1]])
    on_x0, on_xt = np.sqrt(before) * beta / (1 - ab), np.sqrt(1 - beta) * (1 - before) / (1 - ab)
    c = exact(tables_for(Linear(), 1000))
    xt = q_sample(c, x0, t, eps)
    expected = sum(torch.from_numpy(k)[t].reshape(7, 1, 1, 1) * x for k, x in ((on_x0, x0), (on_xt, xt)))
    torch.testing.assert_close(Mu().target(c.at(t, x0), x0, eps, xt), expected, rtol=1e-9, atol=1e-9)


def test_v_is_the_velocity_on_the_circle(batch):
    """v = d x_t / d phi with x_t = cos(phi) x0 + sin(phi) eps: Salimans & Ho 2022, appendix D."""
    x0, eps, t = batch
    tables = tables_for(Linear(), 1000)
    phi = torch.from_numpy(np.arctan2(np.sqrt(tables.noise2), tables.signal))[t].reshape(7, 1, 1, 1)
    step = 1e-6
    ahead, behind = (torch.cos(phi + d) * x0 + torch.sin(phi + d) * eps for d in (step, -step))
    velocity = (ahead - behind) / (2 * step)
    c = exact(tables)
    found = V().target(c.at(t, x0), x0, eps, q_sample(c, x0, t, eps))
    torch.testing.assert_close(found, velocity, rtol=0, atol=1e-8)


def test_coefficients_are_the_tables_rounded_once_to_float32():
    tables = tables_for(Cosine(), 1000)
    c = Coefficients.of(tables)
    for ours, table in ((c.signal, tables.signal), (c.noise, np.sqrt(tables.noise2))):
        assert ours.dtype == torch.float32
        np.testing.assert_array_equal(ours.numpy(), table.astype(np.float32))
    # no step may lose its noise or its signal to rounding
    assert bool((c.noise > 0).all())
    assert bool((c.signal > 0).all())
    np.testing.assert_array_equal(c.network_time.numpy(), np.arange(1000, dtype=np.float32))
