"""Reverse variances against diffusers and denoising-diffusion-pytorch; analytic and optimal have no package to ask."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

import ddpmkit
from ddpmkit.diffusion.tables_for import fixed_log_variance

SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


@pytest.fixture(params=SCHEDULES)
def pair(request, tables):
    """A chain, and diffusers' scheduler given the same alpha-bar in float64, so that formulas are compared."""
    chain = tables(request.param)
    scheduler = DDPMScheduler(beta_schedule=SCHEDULES[request.param])
    scheduler.alphas_cumprod = torch.from_numpy(chain.alpha_bars)
    return chain, scheduler


def theirs(scheduler, kind, v=None):
    return np.array([float(scheduler._get_variance(t, v, variance_type=kind)) for t in range(1000)])


@pytest.mark.parametrize(("sigma", "kind"), [("beta", "fixed_large"), ("beta-tilde", "fixed_small")])
def test_fixed_variances_are_those_of_diffusers(pair, sigma, kind):
    chain, scheduler = pair
    found = np.exp(fixed_log_variance(ddpmkit.build("sigma", sigma), chain))
    # alpha-bar_t / alpha-bar_{t-1} from the products, where beta is small: nine digits of it are left.
    np.testing.assert_allclose(theirs(scheduler, kind)[1:], found[1:], rtol=1e-8)


def test_with_their_own_float32_tables_they_agree_to_float32(tables):
    """beta is recovered as 1 - alpha-bar_t / alpha-bar_{t-1} there, so its absolute error is that of 1."""
    chain, scheduler = tables("linear"), DDPMScheduler()
    found = np.exp(fixed_log_variance(ddpmkit.build("sigma", "beta"), chain))
    np.testing.assert_allclose(theirs(scheduler, "fixed_large"), found, rtol=0, atol=3e-7)


@pytest.mark.parametrize("v", [-1.0, -0.4, 0.0, 0.7, 1.0, 1.5])
def test_learned_range_is_that_of_diffusers(pair, v):
    chain, scheduler = pair
    kind = ddpmkit.build("sigma", "learned-range")
    low, high = (torch.from_numpy(b) for b in kind.log_bounds(chain))
    found = kind.from_network(low, high, torch.full((1000,), v, dtype=torch.float64))
    given = theirs(scheduler, "learned_range", torch.tensor(v, dtype=torch.float64))  # a log-variance
    np.testing.assert_allclose(given[1:], found[1:], atol=1e-7)
    if abs(v) <= 1:
        fixed = fixed_log_variance(ddpmkit.build("sigma", f"interpolate:w={(v + 1) / 2}"), chain)
        np.testing.assert_allclose(given[1:], fixed[1:], atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learned_range_is_that_of_denoising_diffusion_pytorch(lucidrains, tables, model, schedule):
    chain, kind = tables(schedule), ddpmkit.build("sigma", "learned-range")
    peer = lucidrains.LearnedGaussianDiffusion(
        model(outputs=2), image_size=4, timesteps=1000, beta_schedule=schedule, objective="pred_noise"
    )
    t = torch.arange(1, 1000)
    x = torch.zeros(999, 1, 1, 1)
    v = torch.linspace(-1.2, 1.2, 999).reshape(-1, 1, 1, 1)
    *_, given, _ = peer.p_mean_variance(x=x, t=t, clip_denoised=False, model_output=torch.cat([x, v], 1))
    low, high = (torch.from_numpy(b[1:]).reshape(-1, 1, 1, 1) for b in kind.log_bounds(chain))
    torch.testing.assert_close(given.double(), kind.from_network(low, high, v.double()), rtol=0, atol=1e-5)


# --- known differences -------------------------------------------------------------------------------------------


def test_nobody_agrees_about_the_first_step(lucidrains, model, pair):
    """beta-tilde_1 is 0. Its place matters to the likelihood alone: ours is beta-tilde_2 as in OpenAI's and Ho's code,
    theirs is 1e-20, whose logarithm would cost hundreds of bits."""
    chain, scheduler = pair
    small = np.exp(fixed_log_variance(ddpmkit.build("sigma", "beta-tilde"), chain))
    assert theirs(scheduler, "fixed_small")[0] == pytest.approx(1e-20)
    assert small[0] == small[1] > 1e-5
    peer = lucidrains.GaussianDiffusion(model(), image_size=4, timesteps=1000)
    assert float(peer.posterior_log_variance_clipped[0]) == pytest.approx(math.log(1e-20), rel=1e-5)
    # beta_1 stays beta_1 with us and with diffusers; OpenAI's code replaces it too.
    large = fixed_log_variance(ddpmkit.build("sigma", "beta"), chain)
    assert math.exp(large[0]) == pytest.approx(theirs(scheduler, "fixed_large")[0])


def test_learned_in_diffusers_is_a_variance_and_not_its_logarithm(pair):
    """So that a network that answers 0 or less adds no noise or NaN; ours is log beta_t plus the output."""
    chain, scheduler = pair
    out = torch.tensor(-0.5, dtype=torch.float64)
    assert float(scheduler._get_variance(500, out, variance_type="learned")) == -0.5
    kind = ddpmkit.build("sigma", "learned")
    low, high = (torch.from_numpy(b) for b in kind.log_bounds(chain))
    assert float(torch.exp(kind.from_network(low, high, out)[500])) == pytest.approx(chain.b2[500] * math.exp(-0.5))


def test_the_two_log_variants_of_diffusers_return_other_things(pair):
    """fixed_small_log is a standard deviation and fixed_large_log a logarithm, both from a function named variance."""
    chain, scheduler = pair
    small, large = (fixed_log_variance(ddpmkit.build("sigma", s), chain) for s in ("beta-tilde", "beta"))
    np.testing.assert_allclose(theirs(scheduler, "fixed_small_log")[1:], np.exp(small[1:] / 2), rtol=1e-8)
    np.testing.assert_allclose(theirs(scheduler, "fixed_large_log")[1:], large[1:], rtol=1e-8)
    assert theirs(scheduler, "fixed_large_log").max() < 0
