"""Loss weightings against diffusers and denoising-diffusion-pytorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr

import ddpmkit
from ddpmkit.diffusion.gaussian import Coefficients, q_sample
from ddpmkit.diffusion.objective import loss, prediction_weights
from ddpmkit.diffusion.tables_for import decoder_log_variance
from ddpmkit.training.config import TrainConfig
from ddpmkit.training.loop import build_objective

SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
OBJECTIVES = {"eps": "pred_noise", "x0": "pred_x0", "v": "pred_v"}


def ours(tables, weighting, prediction):
    weights = ddpmkit.build("weighting", weighting).weights(tables, np.log(tables.b2))
    return prediction_weights(tables, weights, ddpmkit.build("prediction", prediction))


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("prediction", OBJECTIVES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_min_snr_is_that_of_denoising_diffusion_pytorch(lucidrains, tables, model, schedule, prediction, gamma):
    peer = lucidrains.GaussianDiffusion(
        model(),
        image_size=4,
        timesteps=1000,
        beta_schedule=schedule,
        objective=OBJECTIVES[prediction],
        min_snr_loss_weight=True,
        min_snr_gamma=gamma,
    )
    np.testing.assert_allclose(
        peer.loss_weight, ours(tables(schedule), f"min-snr:gamma={gamma}", prediction), rtol=1e-6
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_min_snr_they_weigh_by_the_snr_which_is_our_simple(lucidrains, tables, model, schedule):
    """Uniform in eps for every objective; the x0 objective is weighted by the unbounded SNR."""
    for prediction, objective in OBJECTIVES.items():
        peer = lucidrains.GaussianDiffusion(
            model(), image_size=4, timesteps=1000, beta_schedule=schedule, objective=objective
        )
        for name in ("simple", "snr"):
            np.testing.assert_allclose(peer.loss_weight, ours(tables(schedule), name, prediction), rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_snr_is_that_of_diffusers_and_so_is_min_snr(tables, schedule):
    chain, t = tables(schedule), torch.arange(1000)
    snr = compute_snr(DDPMScheduler(beta_schedule=SCHEDULES[schedule]), t).double()
    np.testing.assert_allclose(snr, chain.snr, rtol=2e-3)  # 1 - alpha-bar_1 = 4e-5 in float32: three digits are left
    np.testing.assert_allclose(snr[100:], chain.snr[100:], rtol=5e-5)
    clipped = torch.minimum(snr, torch.tensor(5.0))
    np.testing.assert_allclose(clipped / snr, ours(chain, "min-snr", "eps"), rtol=2e-3)
    np.testing.assert_allclose(clipped / (snr + 1), ours(chain, "min-snr", "v"), rtol=2e-3)
    np.testing.assert_allclose(clipped, ours(chain, "min-snr", "x0"), rtol=2e-3)


CONFIG = TrainConfig(
    1, 1, 1, 1e-3, "constant", 0, 0.0, 1.0, (0.9,), 0.0, ddpmkit.build("prediction", "eps"), "uniform", "fp32", 0
)


@pytest.mark.parametrize("T", [100, 1000])
def test_hybrid_is_theirs_times_t(lucidrains, tables, model, T):
    """Both add 0.001 of the bound in bits per dimension; they forget that one term of T stands for the whole sum."""
    chain, kind = tables("linear", T), ddpmkit.build("sigma", "learned-range")
    generator = torch.Generator().manual_seed(0)
    t = torch.tensor([1, 2, T // 10, T // 2, T - 1])
    x0 = torch.rand(5, 1, 4, 4, generator=generator) * 2 - 1
    eps = torch.randn(x0.shape, generator=generator)
    out = torch.cat([eps + 0.3 * torch.randn(x0.shape, generator=generator), torch.full_like(x0, 0.2)], 1)
    peer = lucidrains.LearnedGaussianDiffusion(
        model(lambda x, t: out[: len(x)], 2), image_size=4, timesteps=T, beta_schedule="linear", objective="pred_noise"
    )
    bounds = kind.log_bounds(chain)
    o = build_objective(
        chain, ddpmkit.build("weighting", "hybrid"), bounds[1], decoder_log_variance(chain), CONFIG, 256,
        torch.device("cpu"), kind,
    )  # fmt: skip
    xt = q_sample(Coefficients.of(chain), x0, t, eps)
    found = loss(o, x0, t, eps, xt, out)
    extra = float((found.weighted - found.eps_mse).double().mean())
    theirs = float(peer.p_losses(x0, t, noise=eps)) - float((out[:, :1] - eps).square().mean())
    assert extra == pytest.approx(T * theirs, rel=2e-2)  # theirs is the difference of two float32 near 0.09
    assert extra > 0
    assert extra / math.log(2) != pytest.approx(T * theirs, rel=0.3)  # bits, and only once


def test_the_bound_of_hybrid_term_by_term(lucidrains, tables, model):
    """Their vb_loss alone, with the weight raised so that it is no small difference."""
    chain, kind = tables("linear"), ddpmkit.build("sigma", "learned-range")
    bounds = kind.log_bounds(chain)
    weighting = ddpmkit.build("weighting", "hybrid:lam=1000.0")
    o = build_objective(
        chain, weighting, bounds[1], decoder_log_variance(chain), CONFIG, 256, torch.device("cpu"), kind
    )
    generator = torch.Generator().manual_seed(1)
    for step in (1, 2, 10, 100, 500, 999):
        x0 = torch.rand(1, 1, 4, 4, generator=generator) * 2 - 1
        eps = torch.randn(x0.shape, generator=generator)
        out = torch.cat([eps + 0.3, torch.full_like(x0, -0.3)], 1)
        peer = lucidrains.LearnedGaussianDiffusion(
            model(lambda x, t, out=out: out, 2), 1e6, image_size=4, timesteps=1000, beta_schedule="linear",
            objective="pred_noise",
        )  # fmt: skip
        t = torch.tensor([step])
        found = loss(o, x0, t, eps, q_sample(Coefficients.of(chain), x0, t, eps), out)
        assert float(found.weighted) == pytest.approx(float(peer.p_losses(x0, t, noise=eps)), rel=2e-3)
