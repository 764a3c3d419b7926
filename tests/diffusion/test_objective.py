"""The training loss against plain definitions: eps-MSE, Ho's equation 12, the decoder at t=1."""

import math
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
from ddpmkit.builtin.sigmas.beta import Beta
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde
from ddpmkit.builtin.weightings.simple import Simple
from ddpmkit.builtin.weightings.vlb import Vlb
from ddpmkit.diffusion.denoise import Denoiser
from ddpmkit.diffusion.gaussian import Coefficients, q_sample
from ddpmkit.diffusion.objective import Objective, loss, prediction_weights
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Schedule

torch.set_num_threads(1)
T = 1000
STEPS = torch.tensor([1, 7, 50, 300, 700, 950])  # none of them the decoder's


@dataclass(frozen=True)
class Walk(Schedule):
    """The random walk: not variance-preserving, so v is not defined."""

    name = "walk"

    def steps(self, T):
        return np.ones(T), np.full(T, 0.01)


def objective(weighting, prediction, schedule=None, sigma=None, levels=17):
    """Put an objective together as training does, but in float64, so that a formula is tested and not its rounding."""
    tables = tables_for(schedule or Linear(), T)
    log_sigma2 = fixed_log_variance(sigma or Beta(), tables)
    weights = prediction_weights(tables, weighting.weights(tables, log_sigma2), prediction)
    decoder = math.exp(decoder_log_variance(tables) / 2) if weighting.decoder_first else None
    c = replace(
        Coefficients.of(tables),
        signal=torch.from_numpy(tables.signal),
        noise=torch.from_numpy(np.sqrt(tables.noise2)),
        posterior_x0=torch.from_numpy(tables.full_posterior_x0),
        posterior_xt=torch.from_numpy(tables.full_posterior_xt),
    )
    return Objective(Denoiser(c, prediction), torch.from_numpy(weights), decoder, levels, prediction == Eps())


@pytest.fixture
def batch():
    """Images on 17 grey levels, noise, and an estimate of eps that is off, each (6, 1, 4, 4)."""
    generator = torch.Generator().manual_seed(3)
    x0 = torch.randint(0, 17, (6, 1, 4, 4), generator=generator).double() / 8 - 1
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    guess = eps + 0.3 * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    return x0, eps, guess


def output_for(o, x0, t, xt, guess):
    """The network's output, in the space of the prediction, that means the eps ``guess``."""
    at = o.denoiser.coefficients.at(t, xt)
    return o.denoiser.prediction.target(at, (xt - at.noise * guess) / at.signal, guess, xt)


def run(o, batch, t):
    x0, eps, guess = batch
    xt = q_sample(o.denoiser.coefficients, x0, t, eps)
    return loss(o, x0, t, eps, xt, output_for(o, x0, t, xt, guess))


def test_simple_with_eps_prediction_is_the_plain_mean_squared_error(batch):
    x0, eps, guess = batch
    for t in (STEPS, torch.zeros_like(STEPS)):
        got = run(objective(Simple(), Eps()), batch, t)
        plain = torch.nn.functional.mse_loss(guess, eps, reduction="none").mean((1, 2, 3))
        torch.testing.assert_close(got.weighted, plain)
        torch.testing.assert_close(got.eps_mse, plain)
        assert got.weighted.shape == (len(x0),)


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=lambda s: s.name)
@pytest.mark.parametrize("weighting", [Simple(), Vlb()], ids=lambda w: w.name)
@pytest.mark.parametrize("prediction", [X0(), V(), Mu()], ids=str)
def test_the_loss_of_an_estimate_does_not_depend_on_what_the_network_was_asked_for(
    batch, schedule, weighting, prediction
):
    """The weight is stated once, on the x0-error: the same estimate costs the same in every space."""
    expected = run(objective(weighting, Eps(), schedule), batch, STEPS)
    got = run(objective(weighting, prediction, schedule), batch, STEPS)
    torch.testing.assert_close(got.weighted, expected.weighted, rtol=1e-8, atol=0)
    torch.testing.assert_close(got.eps_mse, expected.eps_mse, rtol=1e-8, atol=0)


@pytest.mark.parametrize("sigma", [Beta(), BetaTilde()], ids=lambda s: s.name)
@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=lambda s: s.name)
def test_vlb_is_equation_12_per_dimension(batch, schedule, sigma):
    _, eps, guess = batch
    beta = schedule.betas(T)
    alpha_bar = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    variance = beta if isinstance(sigma, Beta) else beta * (1 - before) / (1 - alpha_bar)
    t = STEPS.numpy()
    weight = torch.from_numpy((beta**2)[t] / (2 * variance * (1 - beta) * (1 - alpha_bar))[t])
    expected = weight * (eps - guess).square().mean((1, 2, 3))
    torch.testing.assert_close(run(objective(Vlb(), Eps(), schedule, sigma), batch, STEPS).weighted, expected)


@pytest.mark.parametrize("sigma", [Beta(), BetaTilde()], ids=lambda s: s.name)
def test_the_gradient_of_the_vlb_is_its_weight_times_that_of_the_squared_error(batch, sigma):
    x0, eps, guess = batch
    o = objective(Vlb(), Eps(), sigma=sigma)
    xt = q_sample(o.denoiser.coefficients, x0, STEPS, eps)
    out = guess.clone().requires_grad_()
    loss(o, x0, STEPS, eps, xt, out).weighted.sum().backward()
    beta = Linear().betas(T)
    alpha_bar = np.cumprod(1 - beta)
    tilde = beta[1:] * (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:])
    variance = beta[1:] if isinstance(sigma, Beta) else tilde
    weight = (beta[1:] ** 2 / (2 * variance * (1 - beta[1:]) * (1 - alpha_bar[1:])))[STEPS.numpy() - 1]
    expected = torch.from_numpy(weight).reshape(-1, 1, 1, 1) * 2 * (guess - eps) / 16
    torch.testing.assert_close(out.grad, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("prediction", [Eps(), X0(), V()], ids=str)
def test_at_the_first_step_the_vlb_is_the_decoder_and_elsewhere_it_is_not(batch, prediction):
    x0, eps, guess = batch
    o = objective(Vlb(), prediction)
    t = torch.tensor([0, 50, 0, 300, 0, 0])
    got = run(o, batch, t).weighted
    xt = q_sample(o.denoiser.coefficients, x0, t, eps)
    beta = Linear().betas(T)
    sigma = math.sqrt(beta[1] * beta[0] / (1 - (1 - beta[0]) * (1 - beta[1])))  # beta-tilde_2
    half, normal = 1 / 16, torch.distributions.Normal(0.0, 1.0)
    x0_hat = (xt - math.sqrt(beta[0]) * guess) / math.sqrt(1 - beta[0])
    upper = torch.where(x0 > 1 - half, torch.inf, (x0 - x0_hat + half) / sigma)
    lower = torch.where(x0 < -1 + half, -torch.inf, (x0 - x0_hat - half) / sigma)
    nll = -(normal.cdf(upper) - normal.cdf(lower)).log().mean((1, 2, 3))
    torch.testing.assert_close(got[t == 0], nll[t == 0], rtol=1e-7, atol=1e-14)
    elsewhere = run(o, batch, STEPS[torch.tensor([0, 2, 0, 3, 0, 0])]).weighted
    torch.testing.assert_close(got[t > 0], elsewhere[t > 0])


def test_the_decoder_pulls_towards_the_pixel_and_only_at_the_first_step(batch):
    x0, eps, _ = batch
    o = objective(Vlb(), X0(), levels=256)
    t = torch.tensor([0, 0, 0, 10, 10, 10])
    out = (x0 + 0.02).requires_grad_()
    got = loss(o, x0, t, eps, q_sample(o.denoiser.coefficients, x0, t, eps), out).weighted
    got[:3].sum().backward()
    assert bool((out.grad[:3][x0[:3] < 1] > 0).all())  # the estimate is too high: less is better
    assert bool((out.grad[3:] == 0).all())


def test_a_wild_estimate_at_one_step_leaves_the_gradients_of_the_others_finite(batch):
    """In float32 the term that is dropped for a row must not reach its gradient as 0 * inf."""
    x0, eps, _ = (v.float() for v in batch)
    for weighting in (Simple(), Vlb()):
        exact = objective(weighting, Eps(), Cosine())
        c = Coefficients.of(tables_for(Cosine(), T))
        o = Objective(Denoiser(c, Eps()), exact.weights.float(), exact.decoder_sigma, 17, True)
        t = torch.tensor([0, 999, 999, 0, 998, 500])
        out = torch.full_like(x0, 1e3).requires_grad_()
        got = loss(o, x0, t, eps, q_sample(c, x0, t, eps), out)
        got.weighted.sum().backward()
        assert bool(torch.isfinite(got.weighted).all())
        assert bool(torch.isfinite(out.grad).all())


def test_the_raw_error_is_logged_and_never_trained_on(batch):
    x0, eps, guess = batch
    o = objective(Vlb(), V())
    xt = q_sample(o.denoiser.coefficients, x0, STEPS, eps)
    out = output_for(o, x0, STEPS, xt, guess).requires_grad_()
    got = loss(o, x0, STEPS, eps, xt, out)
    assert got.weighted.requires_grad
    assert not got.eps_mse.requires_grad
    torch.testing.assert_close(got.eps_mse, (guess - eps).square().mean((1, 2, 3)), rtol=1e-8, atol=0)


@pytest.mark.parametrize("prediction", [Eps(), X0(), V()], ids=str)
def test_conversion_of_weights(prediction):
    tables = tables_for(Cosine(), T)
    alpha_bar = np.cumprod(1 - Cosine().betas(T))
    snr = alpha_bar / (1 - alpha_bar)
    expected = {Eps(): np.ones(T), X0(): snr, V(): snr / (snr + 1)}[prediction]
    np.testing.assert_allclose(prediction_weights(tables, tables.snr, prediction), expected, rtol=1e-8)


def test_v_off_the_variance_preserving_family_is_refused_with_a_way_out():
    tables = tables_for(Walk(), 100)
    with pytest.raises(DdpmkitError, match="v-prediction needs a variance-preserving schedule") as caught:
        prediction_weights(tables, tables.snr, V())
    assert "--prediction eps or x0" in caught.value.hint
    for prediction in (Eps(), X0()):
        assert np.isfinite(prediction_weights(tables, tables.snr, prediction)).all()
