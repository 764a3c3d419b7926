"""Schedules, marginals and the posterior against diffusers and denoising-diffusion-pytorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler, rescale_zero_terminal_snr

import ddpmkit

DIFFUSERS = {
    "linear": "linear",
    "quadratic": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
    "sigmoid": "sigmoid",
}
LIKE_LUCIDRAINS = "sigmoid-gamma:tau=1.0:floor=0.0:max_beta=0.999"


@pytest.mark.parametrize("spec", DIFFUSERS)
def test_schedules_are_those_of_diffusers(tables, spec):
    ours, theirs = tables(spec), DDPMScheduler(beta_schedule=DIFFUSERS[spec])
    # Their tables are float32, ours are float64 and rounded once.
    np.testing.assert_allclose(theirs.betas, ours.betas, rtol=2e-6)
    np.testing.assert_allclose(theirs.alphas_cumprod, ours.alpha_bars, rtol=3e-5)


@pytest.mark.parametrize("T", [50, 100, 1000, 4000])
def test_schedules_are_those_of_denoising_diffusion_pytorch(lucidrains, tables, T):
    np.testing.assert_allclose(lucidrains.linear(T), tables("linear", T).betas, rtol=1e-12)
    np.testing.assert_allclose(lucidrains.cosine(T), tables("cosine", T).betas, rtol=1e-9)
    # They take the two ends of their sigmoid in float32, so alpha-bar is off by that much.
    theirs = torch.cumprod(1 - lucidrains.sigmoid(T), 0)
    np.testing.assert_allclose(theirs, tables(LIKE_LUCIDRAINS, T).alpha_bars, atol=3e-7, rtol=0)


def test_zero_terminal_snr_is_that_of_diffusers(tables):
    theirs = rescale_zero_terminal_snr(torch.from_numpy(tables("linear").betas))
    np.testing.assert_allclose(theirs, tables("zero-snr").betas, rtol=1e-9)
    assert float(theirs[-1]) == tables("zero-snr").betas[-1] == 1.0
    scheduler = DDPMScheduler(rescale_betas_zero_snr=True)
    np.testing.assert_allclose(scheduler.alphas_cumprod.sqrt(), tables("zero-snr").signal, atol=2e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_posterior_is_that_of_denoising_diffusion_pytorch(lucidrains, tables, model, schedule):
    ours = tables(schedule)
    theirs = lucidrains.GaussianDiffusion(model(), image_size=4, timesteps=1000, beta_schedule=schedule)
    near = {"rtol": 2e-6, "atol": 1e-12}  # computed in float64 and rounded to float32
    np.testing.assert_allclose(theirs.posterior_variance, ours.posterior_variance, **near)
    np.testing.assert_allclose(theirs.posterior_mean_coef1, ours.posterior_x0, **near)
    np.testing.assert_allclose(theirs.posterior_mean_coef2, ours.posterior_xt, **near)
    np.testing.assert_allclose(theirs.sqrt_alphas_cumprod, ours.signal, **near)
    np.testing.assert_allclose(theirs.sqrt_one_minus_alphas_cumprod, ours.noise2**0.5, **near)


def test_v_is_that_of_both(lucidrains, tables, model):
    from ddpmkit.diffusion.gaussian import Coefficients, q_sample

    c = Coefficients.of(tables("cosine"))
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(5, 1, 4, 4, generator=generator) for _ in range(2))
    t = torch.tensor([0, 1, 300, 700, 990])
    at, xt = c.at(t, x0), q_sample(c, x0, t, eps)
    velocity, noise = (ddpmkit.build("prediction", name) for name in ("v", "eps"))
    v = velocity.target(at, x0, eps, xt)
    theirs = lucidrains.GaussianDiffusion(model(), image_size=4, timesteps=1000, beta_schedule="cosine")
    torch.testing.assert_close(v, theirs.predict_v(x0, t, eps), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(velocity.x0hat(at, xt, v), theirs.predict_start_from_v(xt, t, v), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(noise.x0hat(at, xt, eps)[:-1], theirs.predict_start_from_noise(xt, t, eps)[:-1])
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(xt, scheduler.add_noise(x0, eps, t), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(v, scheduler.get_velocity(x0, eps, t), rtol=1e-4, atol=1e-5)


# --- known differences -------------------------------------------------------------------------------------------


def test_three_functions_are_called_sigmoid(lucidrains, tables):
    """diffusers puts it into beta, the other two into alpha-bar, and they differ in temperature and end."""
    beta_space, chen = tables("sigmoid"), tables("sigmoid-gamma")
    lucid = torch.cumprod(1 - lucidrains.sigmoid(1000), 0).numpy()
    assert np.abs(beta_space.alpha_bars - lucid).max() > 0.1
    assert np.abs(chen.alpha_bars - lucid).max() > 0.01
    assert lucid[-1] > 100 * chen.alpha_bars[-1]
    assert ddpmkit.build("schedule", LIKE_LUCIDRAINS).betas(1000)[-1] == 0.999


@pytest.mark.parametrize("spec", ["linear", "quadratic", "sigmoid"])
def test_diffusers_does_not_scale_the_endpoints_of_a_short_chain(tables, spec):
    """At T=100 it leaves a third of the signal's power in x_T; ddpmkit scales by 1000/T unless told not to."""
    theirs = DDPMScheduler(num_train_timesteps=100, beta_schedule=DIFFUSERS[spec])
    np.testing.assert_allclose(10 * theirs.betas.double(), tables(spec, 100).betas, rtol=2e-6)
    assert float(theirs.alphas_cumprod[-1]) > 0.3
    assert tables(spec, 100).alpha_bars[-1] < 1e-3
    if spec == "linear":
        np.testing.assert_allclose(theirs.betas, tables("linear:scaled=false", 100).betas, rtol=2e-6)


def test_diffusers_takes_the_root_of_the_laplace_schedule(tables):
    """Its alpha_bar function returns sqrt(SNR / (1 + SNR)), which is then used as alpha-bar and not as its root."""
    theirs = DDPMScheduler(beta_schedule="laplace").alphas_cumprod.double().numpy()
    ours = tables("laplace").alpha_bars
    # They also add 1e-6 inside the logarithm, which is seen at the ends; and their alpha-bar, multiplied out from the
    # ratios, starts from the value at t=0, which that leaves short of 1 by 0.0005.
    middle = slice(5, 990)
    np.testing.assert_allclose(theirs[middle], np.sqrt(ours[middle]), rtol=2e-3)
    assert np.abs(theirs - ours).max() > 0.1


def test_float32_tables_lose_digits_that_ours_keep(lucidrains, tables):
    """diffusers multiplies alpha-bar out in float32; ours agrees with a float64 product to twelve digits."""
    exact = torch.cumprod(1 - lucidrains.cosine(1000), 0)
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double()
    assert float((theirs / exact - 1).abs().max()) > 1e-6
    np.testing.assert_allclose(tables("cosine").alpha_bars, exact, rtol=1e-12)
