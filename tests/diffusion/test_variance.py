"""Learned and fitted reverse variances against closed forms: Gaussian data, autograd, and what the papers print."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit.diffusion.bound_terms import decoder_nll, middle_constant, middle_factor, middle_terms
from ddpmkit.diffusion.denoise import predictor
from ddpmkit.diffusion.gaussian import Coefficients, q_sample
from ddpmkit.diffusion.objective import bound_term, loss
from ddpmkit.diffusion.reverse_variance import log_variance, step_sigmas
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood.fit import best_decoder_log_variance, fit_statistics
from ddpmkit.sampling import with_sigma
from ddpmkit.training.config import TrainConfig
from ddpmkit.training.loop import build_objective

torch.set_num_threads(1)
CPU = torch.device("cpu")
EPS, X0 = (ddpmkit.build("prediction", name) for name in ("eps", "x0"))
CONFIG = TrainConfig(1, 1, 1, 1e-3, "constant", 0, 0.0, 1.0, (0.9,), 0.0, EPS, "uniform", "fp32", 0)


def tables(schedule="linear", T=1000):
    return tables_for(ddpmkit.build("schedule", schedule), T)


def gaussian_statistics(chain, s2):
    """What the exact denoiser of N(0, s2) gives: E eps-hat^2 and E (x0 - x0hat)^2."""
    total = chain.alpha_bars * s2 + chain.noise2
    return {
        "eps_squared": chain.noise2 / total,
        "error": s2 * chain.noise2 / total,
        "error_clipped": s2 * chain.noise2 / total,
    }


def gaussian_step(m_s, v_s, m_r, v_r, s2):
    """Var(x_s | x_r) of data N(0, s2): the exact reverse variance, from the joint Gaussian alone."""
    a = m_r / m_s
    total_s, total_r = m_s**2 * s2 + v_s, m_r**2 * s2 + v_r
    return total_s - (a * total_s) ** 2 / total_r


@pytest.mark.parametrize("sigma", ["analytic", "optimal"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("s2", [0.01, 0.25, 1.0])
def test_a_fitted_sigma_is_the_exact_reverse_variance_of_gaussian_data(sigma, schedule, s2):
    chain, kind = tables(schedule), ddpmkit.build("sigma", sigma)
    found = np.exp(log_variance(kind, chain, gaussian_statistics(chain, s2)))
    exact = gaussian_step(chain.signal_before, chain.noise2_before, chain.signal, chain.noise2, s2)
    np.testing.assert_allclose(found[1:], exact[1:], rtol=1e-6)  # the exact one is itself a difference of near numbers


@pytest.mark.parametrize("count", [5, 50])
def test_a_fitted_sigma_serves_a_strided_chain(count):
    full = tables()
    sampler = ddpmkit.build("sampler", "ancestral")
    chain = full.strided(sampler.timesteps(1000, count))
    kind = ddpmkit.build("sigma", "analytic:pixels=1e9")
    found = step_sigmas(sampler, kind, full, chain, 256, gaussian_statistics(full, 0.25)) ** 2
    exact = gaussian_step(chain.signal_before, chain.noise2_before, chain.signal, chain.noise2, 0.25)
    np.testing.assert_allclose(found[1:], exact[1:], rtol=1e-9)


def test_analytic_ddim_gives_back_the_variance_that_a_deterministic_walk_loses():
    """Exact denoiser, Gaussian data: x_s must have the marginal variance again, whatever eta."""
    full, s2 = tables(), 0.25
    for eta in (0.0, 0.5, 1.0):
        sampler = ddpmkit.build("sampler", f"ddim:eta={eta}:clip=none")
        chain = full.strided(sampler.timesteps(1000, 10))
        kind = ddpmkit.build("sigma", "analytic:pixels=1e9")
        deviations = step_sigmas(sampler, kind, full, chain, 256, gaussian_statistics(full, s2))
        lam2, kappa = sampler.kernel(chain)
        marginal = chain.alpha_bars * s2 + chain.noise2
        gain = chain.signal * s2 / marginal
        for t in range(1, 10):
            on_x = math.sqrt(chain.noise2[t - 1] - lam2[t]) / math.sqrt(chain.noise2[t])
            slope = kappa[t] * gain[t] + on_x
            assert slope**2 * marginal[t] + deviations[t] ** 2 == pytest.approx(marginal[t - 1], rel=1e-9)


def test_the_last_noisy_step_is_limited_in_sampling_and_not_in_the_likelihood():
    """Bao et al.: at 256 levels 9.66e-5 for one grey level and 3.87e-4 for two."""
    assert ddpmkit.build("sigma", "analytic").largest_last_variance(256) == pytest.approx(9.66e-5, rel=1e-3)
    assert ddpmkit.build("sigma", "analytic:pixels=2").largest_last_variance(256) == pytest.approx(3.87e-4, rel=2e-3)
    full, sampler = tables(), ddpmkit.build("sampler", "ancestral")
    chain = full.strided(sampler.timesteps(1000, 10))
    kind, statistics = ddpmkit.build("sigma", "analytic"), gaussian_statistics(full, 0.25)
    limited = step_sigmas(sampler, kind, full, chain, 256, statistics)
    free = step_sigmas(sampler, ddpmkit.build("sigma", "analytic:pixels=1e9"), full, chain, 256, statistics)
    assert limited[1] ** 2 == pytest.approx(9.66e-5, rel=1e-3)
    assert limited[1] < free[1]
    np.testing.assert_array_equal(limited[2:], free[2:])
    np.testing.assert_array_equal(
        log_variance(kind, full, statistics),
        log_variance(ddpmkit.build("sigma", "analytic:pixels=9"), full, statistics),
    )


def test_an_estimate_of_the_x0_variance_stays_between_nothing_and_that_of_the_range():
    chain, kind = tables(), ddpmkit.build("sigma", "analytic")
    wild = {"eps_squared": np.where(np.arange(1000) % 2, 1.5, -1e6)}
    found = kind.x0_variance(chain, wild)
    assert set(found) == {0.0, 1.0}
    blind = tables("zero-snr")
    assert kind.x0_variance(blind, {"eps_squared": np.ones(1000)})[-1] == 1.0


@pytest.mark.long
def test_the_fit_finds_the_moments_of_a_gaussian_and_its_own_seed():
    chain, s2 = tables(T=50), 0.16
    images = (math.sqrt(s2) * torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    gain = torch.from_numpy(chain.signal * s2 / (chain.alpha_bars * s2 + chain.noise2)).float()

    def run(**changes):
        options = {"images": images, "draws": 200, "levels": 17, "seed": 3, "micro_batch": 64, **changes}
        return fit_statistics(lambda x, t: (gain[t].reshape(-1, 1, 1, 1) * x, None), chain, **options)

    found, exact = run(), gaussian_statistics(chain, s2)
    for name in ("eps_squared", "error"):
        np.testing.assert_allclose(found[name], exact[name], rtol=0.06)  # 12,800 pixels a step: 1.3 % each
    assert (found["error_clipped"] <= found["error"] + 1e-12).all()  # the images lie in the range it is clipped to
    again, other, batches = run(), run(seed=4), run(micro_batch=50)
    assert all(np.array_equal(found[k], again[k]) for k in found)
    assert not np.array_equal(found["error"], other["error"])
    for name in found:
        np.testing.assert_allclose(found[name], batches[name], rtol=1e-6)


def test_the_fitted_decoder_variance_is_the_minimum_of_the_decoder_term():
    generator = torch.Generator().manual_seed(1)
    x0 = (torch.randint(0, 17, (400, 1, 4, 4), generator=generator) / 8 - 1).double()
    mean = x0 + 0.03 * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    best = best_decoder_log_variance(x0, mean, 17)

    def nll(v):
        return float(decoder_nll(x0, mean, math.exp(v / 2), 17).mean())

    assert nll(best) <= min(nll(best + d) for d in (-0.01, 0.01))
    assert nll(best) <= min(nll(v) for v in np.linspace(-14, 0, 200))


def test_learned_range_runs_from_beta_tilde_to_beta_and_beyond():
    chain, kind = tables(), ddpmkit.build("sigma", "learned-range")
    low, high = (torch.from_numpy(v) for v in kind.log_bounds(chain))
    np.testing.assert_allclose(torch.exp(low[1:]), chain.posterior_variance[1:], rtol=1e-12)
    np.testing.assert_allclose(torch.exp(high), chain.b2, rtol=1e-12)
    assert low[0] == low[1]
    torch.testing.assert_close(kind.from_network(low, high, torch.tensor(-1.0)), low)
    torch.testing.assert_close(kind.from_network(low, high, torch.tensor(1.0)), high)
    torch.testing.assert_close(kind.from_network(low, high, torch.tensor(0.0)), (low + high) / 2)
    torch.testing.assert_close(kind.from_network(low, high, torch.tensor(3.0)), 2 * high - low)  # not clamped


def test_a_free_learned_variance_is_beta_times_what_the_network_says():
    chain, kind = tables(), ddpmkit.build("sigma", "learned")
    low, high = (torch.from_numpy(v) for v in kind.log_bounds(chain))
    found = torch.exp(kind.from_network(low, high, torch.full((1000,), math.log(0.25), dtype=torch.float64)))
    np.testing.assert_allclose(found, chain.b2 / 4, rtol=1e-12)


@pytest.mark.parametrize("sigma", ["beta", "beta-tilde", "interpolate:w=0.3"])
def test_a_variance_given_pixel_by_pixel_costs_what_the_same_fixed_one_costs(sigma):
    chain = tables(T=100)
    log_sigma2 = fixed_log_variance(ddpmkit.build("sigma", sigma), chain)
    generator = torch.Generator().manual_seed(0)
    x0, hat = (torch.randn(99, 2, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.arange(1, 100)
    given = torch.from_numpy(log_sigma2)[t].reshape(-1, 1, 1, 1).expand_as(x0)
    found = middle_terms(chain, t, x0, hat, given)
    error = (x0 - hat).square().flatten(1).sum(1).numpy()
    expected = middle_factor(chain, log_sigma2)[1:] * error + 18 * middle_constant(chain, log_sigma2)[1:]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def learned_loss(weighting, sigma, t, extra, T=100, levels=17):
    """The real loss and all that it is made of, for a batch at the steps t."""
    chain = tables(T=T)
    kind, weighing = ddpmkit.build("sigma", sigma), ddpmkit.build("weighting", weighting)
    bounds = kind.log_bounds(chain)
    o = build_objective(chain, weighing, bounds[1], decoder_log_variance(chain), CONFIG, levels, CPU, kind)
    generator = torch.Generator().manual_seed(5)
    x0 = torch.randint(0, levels, (len(t), 1, 4, 4), generator=generator) / ((levels - 1) / 2) - 1
    eps = torch.randn(x0.shape, generator=generator)
    xt = q_sample(Coefficients.of(chain), x0, t, eps)
    mean = (eps + 0.1 * torch.randn(x0.shape, generator=generator)).requires_grad_()
    second = torch.full_like(x0, extra).requires_grad_()
    found = loss(o, x0, t, eps, xt, torch.cat([mean, second], dim=1))
    return chain, o, x0, eps, xt, mean, second, found


T_ALL = torch.tensor([0, 1, 2, 50, 99])


@pytest.mark.parametrize("sigma", ["learned-range", "learned"])
def test_hybrid_is_l_simple_plus_a_thousandth_of_t_times_the_bound_in_bits(sigma):
    chain, _, x0, eps, xt, mean, _, found = learned_loss("hybrid", sigma, T_ALL, 0.4)
    hat = (xt - torch.from_numpy(chain.noise2).float().sqrt()[T_ALL].reshape(-1, 1, 1, 1) * mean) / torch.from_numpy(
        chain.signal
    ).float()[T_ALL].reshape(-1, 1, 1, 1)
    low, high = ddpmkit.build("sigma", "learned-range").log_bounds(chain)
    log_sigma2 = torch.from_numpy(0.7 * high + 0.3 * low if sigma == "learned-range" else high + 0.4)[T_ALL]
    x0, hat = x0.double(), hat.detach().double()
    kl = middle_terms(chain, T_ALL[1:], x0[1:], hat[1:], log_sigma2[1:].reshape(-1, 1, 1, 1).expand_as(x0[1:])) / 16
    decoder = decoder_nll(x0[:1], hat[:1], math.exp(float(log_sigma2[0]) / 2), 17).mean().reshape(1)
    simple = (mean - eps).square().flatten(1).mean(1)
    expected = simple.detach().double() + 0.001 * 100 * torch.cat([decoder, kl]) / math.log(2)
    torch.testing.assert_close(found.weighted.detach().double(), expected, rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(found.eps_mse, simple.detach())


def test_the_mean_learns_from_l_simple_alone_and_the_variance_from_the_bound_alone():
    *_, eps, _, mean, second, found = learned_loss("hybrid", "learned-range", T_ALL, 0.4)
    found.weighted.sum().backward()
    torch.testing.assert_close(mean.grad, 2 * (mean.detach() - eps) / 16)
    assert (second.grad.flatten(1).abs().sum(1) > 0).all()


def test_the_bound_itself_moves_the_mean_too():
    _, o, _, _, _, mean, second, found = learned_loss("vlb", "learned-range", T_ALL, 0.4)
    assert not o.weights.any()
    found.weighted.sum().backward()
    assert (mean.grad.flatten(1).abs().sum(1) > 0).all()
    assert (second.grad.flatten(1).abs().sum(1) > 0).all()
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(second.grad).all()


def test_the_bound_of_a_learned_variance_is_smallest_at_the_optimal_one():
    """dL/dsigma^2 = 0 at beta-tilde + c^2 (x0 - x0hat)^2, pixel by pixel; Bao et al. 2022, theorem 1."""
    chain, o, *_ = learned_loss("vlb", "learned", T_ALL, 0.0)
    t = torch.tensor([40])
    x0, hat = torch.full((1, 1, 1, 1), 0.3), torch.full((1, 1, 1, 1), 0.1)
    best = math.log((chain.posterior_variance[40] + chain.posterior_x0[40] ** 2 * 0.04) / chain.b2[40])
    own = [o.denoiser.log_variance(t, torch.full((1, 1, 1, 1), best + d)) for d in (-0.1, 0.0, 0.1)]
    values = [float(bound_term(o.bound, x0, hat, t, log_sigma2, 17)) for log_sigma2 in own]
    assert values[1] < min(values[0], values[2])


class TwoHeads(torch.nn.Module):
    """x0hat = 0, and a second output that runs from -1 to 1 over the pixels."""

    def forward(self, x, t):
        ramp = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4).expand(len(x), -1, -1, -1)
        return torch.cat([0 * x, ramp], dim=1)


def test_a_learned_deviation_reaches_the_sampler_pixel_by_pixel():
    chain, kind = tables(T=50), ddpmkit.build("sigma", "learned-range")
    base, seen = with_sigma(predictor(TwoHeads(), chain, X0, CPU, kind), None), {}

    def denoise(x, t):
        seen[t] = x, base(x, t)
        return seen[t][1]

    # x_T = 0 and x0hat = 0, and the first step's noise is 1 everywhere: the next x is that step's sigma.
    ddpmkit.build("sampler", "ancestral").sample(denoise, chain, lambda k: torch.full((2, 1, 4, 4), float(k == 1)))
    low, high = kind.log_bounds(chain)
    for pixel, bound in ((0, low), (-1, high)):
        assert seen[48][0].flatten(1)[0, pixel] == pytest.approx(math.exp(bound[49] / 2), rel=1e-5)
        assert seen[10][1].sigma.flatten(1)[0, pixel] == pytest.approx(math.exp(bound[10] / 2), rel=1e-5)
    assert not seen[10][1].quiet


def test_a_network_without_a_second_output_can_not_stand_in_for_a_learned_sigma():
    denoise = with_sigma(lambda x, t: (x, None), None)
    with pytest.raises(DdpmkitError, match="a learned sigma needs a network that gives it"):
        denoise(torch.zeros(1, 1, 4, 4), 0)


def test_a_fitted_sigma_of_a_chain_of_one_step_has_a_first_entry_too():
    full = tables()
    chain = full.strided([999])
    found = log_variance(ddpmkit.build("sigma", "optimal"), chain, gaussian_statistics(full, 1.0), full)
    assert found == pytest.approx(fixed_log_variance(ddpmkit.build("sigma", "beta-tilde"), chain))
