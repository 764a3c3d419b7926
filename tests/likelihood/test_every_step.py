"""The estimator against the bound summed over every step: a full sweep has the same noise, and so the same number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit.diffusion.bound_terms import bound_by_every_step, middle_constant, middle_factor
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, log_bounds, tables_for
from ddpmkit.likelihood import bound, draw, passes, vlb

torch.set_num_threads(1)
K, DIMS, COUNT = 17, 4, 20
UNIT = DIMS * math.log(2)
# It ends with some signal left, so that L_T is worth something.
CHAIN = tables_for(ddpmkit.build("schedule", "linear:scaled=false:beta_1=0.01:beta_T=0.1"), 30)
TABLES = CHAIN.strided([0, 2, 5, 9, 14, 20, 26, 29])
X0 = (torch.randint(0, K, (COUNT, 1, 2, 2), generator=torch.Generator().manual_seed(1)) / 8 - 1).float()
FIXED = {name: fixed_log_variance(ddpmkit.build("sigma", name), TABLES) for name in ("beta", "beta-tilde")}
LOW, HIGH = (torch.from_numpy(v).float() for v in log_bounds(ddpmkit.build("sigma", "learned-range"), TABLES))


def fixed(xt, t):
    return 0.7 * xt + 0.05 * t.reshape(-1, 1, 1, 1), None


def learned(xt, t):
    low, high = (v[t].reshape(-1, 1, 1, 1) for v in (LOW, HIGH))
    return fixed(xt, t)[0], low + (high - low) * torch.sigmoid(xt)


def choice(sigma):
    """The network, the log-variances and the decoder's."""
    return (learned, None, None) if sigma == "learned" else (fixed, FIXED[sigma], decoder_log_variance(TABLES))


def drawn(sigma, **how):
    return draw(choice(sigma)[0], TABLES, images=X0, pilot=X0, levels=K, seed=3, **how)


def agree(sigma, clip):
    net, *given = choice(sigma)
    every = bound_by_every_step(net, TABLES, X0, *given, levels=K, clip=clip, seed=3).numpy() / UNIT
    got = bound(drawn(sigma, full=True, decoder_draws=1), TABLES, *given, levels=K, clip=clip)
    each = got.evidence.prior + got.evidence.totals + got.evidence.decoder[0]
    np.testing.assert_allclose(each, every, rtol=1e-6)
    assert got.total == pytest.approx(every.mean(), rel=1e-6)


SIGMAS = ("beta", "beta-tilde", "learned")


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_full_sweep_is_the_bound_by_every_step_image_by_image(sigma, clip):
    agree(sigma, clip)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_importance_samples_find_the_bound_by_every_step(sigma):
    net, *given = choice(sigma)
    seeds = [bound_by_every_step(net, TABLES, X0, *given, levels=K, seed=s).mean() / UNIT for s in range(60)]
    every, noise = float(np.mean(seeds)), float(np.std(seeds, ddof=1)) / math.sqrt(60)
    got = bound(drawn(sigma, evaluations=20_000), TABLES, *given, levels=K, clip=False)
    assert got.total == pytest.approx(every, abs=4 * math.hypot(got.standard_error, noise))
    assert noise < 0.01 * every


@pytest.mark.parametrize("decoder", ["cdf", "cdf-tanh", "continuous", "softmax"])
def test_every_decoder_is_the_same_in_both(decoder):
    given = FIXED["beta"], decoder_log_variance(TABLES), decoder
    every = bound_by_every_step(fixed, TABLES, X0, *given, levels=K, seed=3).mean() / UNIT
    got = bound(drawn("beta", full=True, decoder_draws=1), TABLES, *given, levels=K, clip=False)
    assert got.total == pytest.approx(float(every), rel=1e-6)


FACTOR, CONSTANT, TERMS, DECODER, PRIOR = (
    middle_factor, middle_constant, passes.middle_terms, vlb.decoder_terms, vlb.prior_kl,
)  # fmt: skip
MISTAKES = {
    "a factor 2 on the error": (vlb, "middle_factor", lambda *given: 2 * FACTOR(*given)),
    "no constant": (vlb, "middle_constant", lambda *given: 0 * CONSTANT(*given)),
    "the constant once and not for each pixel": (vlb, "middle_constant", lambda *given: CONSTANT(*given) / DIMS),
    "the constant's sign": (vlb, "middle_constant", lambda *given: -CONSTANT(*given)),
    "the factor of the step before": (vlb, "middle_factor", lambda *given: np.roll(FACTOR(*given), 1)),
    "the terms of the step before": (passes, "middle_terms", lambda c, t, *rest: TERMS(c, (t - 1).clamp(min=1), *rest)),
    "the decoder in bits": (vlb, "decoder_terms", lambda *given: DECODER(*given) / math.log(2)),
    "no prior": (vlb, "prior_kl", lambda *given: 0 * PRIOR(*given)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(monkeypatch, mistake):
    where, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(where, name, wrong)
    caught = []
    for sigma in SIGMAS:
        try:
            agree(sigma, clip=False)
        except AssertionError:
            caught.append(sigma)
    # The constant is zero where sigma^2 = beta-tilde; where the network gives the variance it is in its terms.
    assert caught == {
        "middle_constant": ["beta"],
        "middle_factor": ["beta", "beta-tilde"],
        "middle_terms": ["learned"],
    }.get(name, list(SIGMAS))
