"""The bound by every step against Ho et al. 2020, eq. 5, from the betas alone; mistakes are planted, and each is found.

Here the posterior is the product of two Gaussians, the KL is torch's, and the decoder a difference of two CDFs: nothing
of the package but the noise and the denoiser.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

import ddpmkit
from ddpmkit.diffusion import bound_terms
from ddpmkit.diffusion.bound_terms import bound_by_every_step, middle_constant, prior_bits, prior_kl
from ddpmkit.diffusion.gaussian import Coefficients, q_sample
from ddpmkit.diffusion.objective import loss
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, log_bounds, tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.randomness import normal, stream_key
from ddpmkit.training.config import TrainConfig
from ddpmkit.training.loop import build_objective

torch.set_num_threads(1)
T, K, DIMS, SEED = 12, 17, 4, 5
# It ends with some signal left, so that L_T is worth something.
SCHEDULE = ddpmkit.build("schedule", "linear:scaled=false:beta_1=0.02:beta_T=0.3")
TABLES = tables_for(SCHEDULE, T)
LEVELS = torch.tensor([[0, 5, 8, 16], [16, 3, 9, 0], [8, 8, 2, 14]])
X0 = (LEVELS.float() / 8 - 1).reshape(3, 1, 2, 2)


def hat(xt, t):
    """Some denoiser: wrong, and another one at each step."""
    return 0.5 * xt + 0.02 * t.reshape(-1, 1, 1, 1)


def own_log_variance(xt, t):
    """Some variance that a network might give, one a pixel."""
    low, high = (torch.from_numpy(v).float()[t].reshape(-1, 1, 1, 1) for v in BOUNDS)
    return low + (high - low) * torch.sigmoid(xt)


BOUNDS = log_bounds(ddpmkit.build("sigma", "learned-range"), TABLES)
FIXED = {name: fixed_log_variance(ddpmkit.build("sigma", name), TABLES) for name in ("beta", "beta-tilde")}


def found(sigma, *, clip=False):
    """Nats of each image, as the package has them."""
    if sigma == "learned":
        return bound_by_every_step(
            lambda xt, t: (hat(xt, t), own_log_variance(xt, t)), TABLES, X0, levels=K, clip=clip, seed=SEED
        )
    given = FIXED[sigma], decoder_log_variance(TABLES)
    return bound_by_every_step(lambda xt, t: (hat(xt, t), None), TABLES, X0, *given, levels=K, clip=clip, seed=SEED)


def by_hand(sigma, *, clip=False):
    """The same from the betas."""
    beta = SCHEDULE.betas(T)
    bars = np.concatenate(
        [[1.0], np.cumprod(1 - beta)]
    )  # bars[t] is the papers' alpha-bar_t, and beta[t-1] their beta_t
    x0 = X0.double()
    end = Normal(math.sqrt(bars[T]) * x0, math.sqrt(1 - bars[T]))
    nats = kl_divergence(end, Normal(torch.zeros_like(x0), 1.0)).flatten(1).sum(1)
    for t in range(1, T + 1):
        key = stream_key(SEED, "nll-full-decoder" if t == 1 else "nll-full")
        eps = normal(key, torch.arange(3), (1, 2, 2), t - 1)
        xt = (math.sqrt(bars[t]) * x0 + math.sqrt(1 - bars[t]) * eps.double()).float()
        steps = torch.full((3,), t - 1)
        guess = hat(xt, steps).double()
        guess = guess.clamp(-1, 1) if clip else guess
        if sigma == "learned":
            deviation = (own_log_variance(xt, steps).double() / 2).exp()
        elif sigma == "beta" and t > 1:
            deviation = torch.full_like(x0, math.sqrt(beta[t - 1]))
        else:
            s = max(t, 2)  # beta-tilde_2 stands for beta-tilde_1
            deviation = torch.full_like(x0, math.sqrt(beta[s - 1] * (1 - bars[s - 1]) / (1 - bars[s])))
        if t == 1:
            upper = torch.where(x0 > 0.99, math.inf, x0 + 1 / (K - 1))
            lower = torch.where(x0 < -0.99, -math.inf, x0 - 1 / (K - 1))
            law = Normal(guess, deviation)
            nats = nats - (law.cdf(upper) - law.cdf(lower)).log().flatten(1).sum(1)
            continue
        before, step = 1 - bars[t - 1], beta[t - 1]
        precision = 1 / before + (1 - step) / step  # of q(x_{t-1} | x0) q(x_t | x_{t-1})

        def posterior(x, t=t, xt=xt, before=before, step=step, precision=precision):
            return (math.sqrt(bars[t - 1]) * x / before + math.sqrt(1 - step) * xt.double() / step) / precision

        nats = nats + kl_divergence(
            Normal(posterior(x0), precision**-0.5), Normal(posterior(guess), deviation)
        ).flatten(1).sum(1)
    return nats


SIGMAS = ("beta", "beta-tilde", "learned")


def agree(sigma, *, clip=False):
    torch.testing.assert_close(found(sigma, clip=clip), by_hand(sigma, clip=clip), rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_bound_by_every_step_is_equation_5(sigma, clip):
    agree(sigma, clip=clip)


KL, TERMS, PIXELS, DECODER, PRIOR = (
    getattr(bound_terms, name) for name in ("kl", "middle_terms", "middle_kl", "decoder_terms", "prior_kl")
)
MISTAKES = {
    "a KL twice as large": ("kl", lambda r, log_r, squared=0.0: 2 * KL(r, log_r, squared)),
    "no beta-tilde over sigma^2": ("kl", lambda r, log_r, squared=0.0: KL(0 * r, log_r, squared)),
    "the log's sign": ("kl", lambda r, log_r, squared=0.0: KL(r, -log_r, squared)),
    "no 1/2 on the distance of the means": ("kl", lambda r, log_r, squared=0.0: KL(r, log_r, 2 * squared)),
    "c_t and not its square": ("middle_kl", lambda tilde, pull2, *rest: PIXELS(tilde, pull2.sqrt(), *rest)),
    "sigma for sigma^2": ("middle_kl", lambda *given: PIXELS(*given[:4], given[4] / 2)),
    "beta-tilde of the step before": ("middle_terms", lambda c, t, *rest: TERMS(c, (t - 1).clamp(min=1), *rest)),
    "the middle in bits": ("middle_terms", lambda *given: TERMS(*given) / math.log(2)),
    "the decoder in bits": ("decoder_terms", lambda *given: DECODER(*given) / math.log(2)),
    "the decoder's sign": ("decoder_terms", lambda *given: -DECODER(*given)),
    "bins of K + 1 levels": ("decoder_terms", lambda *given: DECODER(*given[:4], given[4] + 1)),
    "the prior for each image's mean": ("prior_kl", lambda c, x0: PRIOR(c, x0) / DIMS),
    "no prior": ("prior_kl", lambda c, x0: 0 * PRIOR(c, x0)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(monkeypatch, mistake):
    name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(bound_terms, name, wrong)
    caught = []
    for sigma in SIGMAS:
        try:
            agree(sigma)
        except AssertionError:
            caught.append(sigma)
    # With sigma^2 = beta-tilde the middle is the distance of the means alone, whatever becomes of the logarithm's sign.
    assert set(caught) >= ({"beta", "learned"} if mistake == "the log's sign" else set(SIGMAS))


def test_the_means_of_the_prior_are_those_of_its_images():
    assert prior_bits(TABLES, float(X0.double().square().mean())) == pytest.approx(
        float(prior_kl(TABLES, X0).mean()) / (DIMS * math.log(2)), rel=1e-9
    )


def test_a_bound_without_variances_is_refused():
    with pytest.raises(DdpmkitError, match="no variances of its own"):
        bound_by_every_step(lambda xt, t: (hat(xt, t), None), TABLES, X0, levels=K)


# --- what is trained on is this bound ----------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "mu"])
@pytest.mark.parametrize("sigma", ["beta", "beta-tilde", "learned-range"])
def test_the_loss_of_the_full_bound_summed_over_the_steps_is_the_bound_less_its_prior(sigma, prediction):
    """With the same noise, and the constants that no network changes added; each answer means the same x0hat."""
    asked, kind = ddpmkit.build("prediction", prediction), ddpmkit.build("sigma", sigma)
    config = TrainConfig(1, 1, 1, 1e-3, "constant", 0, 0.0, 1.0, (0.9,), 0.0, asked, "uniform", "fp32", 0)
    log_sigma2, decoder = log_bounds(kind, TABLES)[1], decoder_log_variance(TABLES)
    learned = kind if kind.learned else None
    weighting = ddpmkit.build("weighting", "vlb")
    o = build_objective(TABLES, weighting, log_sigma2, decoder, config, K, torch.device("cpu"), learned)
    c, nats = Coefficients.of(TABLES), prior_kl(TABLES, X0)
    for t in range(T):
        key = stream_key(SEED, "nll-full" if t else "nll-full-decoder")
        eps, steps = normal(key, torch.arange(3), (1, 2, 2), t), torch.full((3,), t)
        xt = q_sample(c, X0, steps, eps)
        guess = hat(xt, steps)
        at = c.at(steps, xt)
        out = asked.target(at, guess, (xt - at.signal * guess) / at.noise, xt)
        if learned:  # what the sigma makes of its second output is own_log_variance
            out = torch.cat([out, 2 * torch.sigmoid(xt) - 1], dim=1)
        nats += loss(o, X0, steps, eps, xt, out).weighted * DIMS
    if not learned:
        nats += DIMS * middle_constant(TABLES, log_sigma2).sum()
    torch.testing.assert_close(nats, found("learned" if learned else sigma), rtol=1e-4, atol=1e-3)
