"""The choices of DDPM's followers against their published constants: schedules, weightings, DPM-Solver++, mu."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit.diffusion.bound_terms import prior_bits
from ddpmkit.diffusion.gaussian import Coefficients, q_sample
from ddpmkit.diffusion.objective import prediction_weights
from ddpmkit.diffusion.tables_for import fixed_log_variance, tables_for
from ddpmkit.plugin.interfaces import Denoised

T = 1000


def tables(spec, steps=T):
    return tables_for(ddpmkit.build("schedule", spec), steps)


# beta_1, beta_T, alpha-bar at the middle, alpha-bar at the end, as the projects that use them give them.
@pytest.mark.parametrize(
    ("spec", "first", "last", "middle", "end"),
    [
        ("sigmoid-gamma:tau=1.0:floor=0.0:max_beta=0.999", 3.003e-4, 0.999, 0.5, 3.003e-7),
        ("sigmoid-gamma", 2.389e-4, None, 0.5, 1e-9),
        ("one-minus-t", 1e-3, None, 0.5, 1e-9),
        ("constant", 0.02, 0.02, None, 1.683e-9),
        ("warmup:fraction=0.1", 1e-4, 0.02, None, 4.61368668e-09),
        ("warmup:fraction=0.5", 1e-4, 0.02, None, 2.60613513e-07),
        ("jsd", 1e-3, 1.0, 0.5, 0.0),
        ("zero-snr", 1e-4, 1.0, None, 0.0),
    ],
)
def test_schedules_have_their_published_constants(spec, first, last, middle, end):
    t = tables(spec)
    digits = {"rel": 2e-4}
    assert t.b2[0] == pytest.approx(first, **digits)
    assert last is None or t.b2[-1] == pytest.approx(last, **digits)
    assert middle is None or t.alpha_bars[499] == pytest.approx(middle, **digits)
    assert t.alpha_bars[-1] == pytest.approx(end, **digits)


@pytest.mark.parametrize(("steps", "end", "bits"), [(200, 0.132182754, 0.1022684), (100, 0.363563248, 0.3259555)])
def test_unscaled_linear_leaves_signal_at_the_end_of_a_short_chain(steps, end, bits):
    t = tables("linear:scaled=false", steps)
    assert t.alpha_bars[-1] == pytest.approx(end, rel=1e-8)
    assert prior_bits(t) == pytest.approx(bits, rel=1e-6)


def test_jsd_posterior_of_step_two():
    assert tables("jsd").posterior_variance[1] == pytest.approx(5.00500501e-04, rel=1e-8)


def test_the_random_walk_ends_at_its_start_plus_t_steps_of_noise():
    t = tables("random-walk:step=0.5")
    np.testing.assert_allclose(t.signal, 1)
    np.testing.assert_allclose(t.noise2, 0.25 * np.arange(1, T + 1))
    assert t.prior_variance == 250


def test_laplace_is_symmetric_in_log_snr():
    log_snr = np.log(tables("laplace").snr[:-1])
    np.testing.assert_allclose(log_snr + log_snr[::-1], 0, atol=1e-9)


# Published factors on the eps-error at the steps 1, 101, 501 and 1000.
@pytest.mark.parametrize(
    ("weighting", "schedule", "expected"),
    [
        ("min-snr", "linear", [5.0005e-4, 0.585709, 1, 1]),
        ("min-snr", "cosine", [2.0643e-4, 0.146279, 1, 1]),
        ("p2", "linear", [1e-4, 0.104858, 0.922203, 0.99996]),
        ("p2", "cosine", [4.128e-5, 0.028424, 0.507715, 1]),
        ("simple", "linear", [1, 1, 1, 1]),
        ("snr", "cosine", [1, 1, 1, 1]),
    ],
)
def test_weightings_on_the_eps_error(weighting, schedule, expected):
    t = tables(schedule)
    w = ddpmkit.build("weighting", weighting)
    found = prediction_weights(t, w.weights(t, np.log(t.b2)), ddpmkit.build("prediction", "eps"))[[0, 100, 500, 999]]
    np.testing.assert_allclose(found, expected, rtol=2e-4)


@pytest.mark.parametrize(("weighting", "low"), [("truncated-snr", 1.0), ("max-snr", 5.0), ("max-snr:k=2.0", 2.0)])
def test_snr_weights_from_below(weighting, low):
    t = tables("linear")
    found = ddpmkit.build("weighting", weighting).weights(t, np.log(t.b2))
    np.testing.assert_array_equal(found, np.where(t.snr > low, t.snr, low))


def test_interpolate_is_log_linear_between_the_bounds():
    t = tables("linear")
    low, high, middle = (
        fixed_log_variance(ddpmkit.build("sigma", s), t) for s in ("beta-tilde", "beta", "interpolate:w=0.25")
    )
    np.testing.assert_allclose(middle, 0.75 * low + 0.25 * high)


def test_mu_is_the_posterior_mean_and_gives_back_x0_also_on_a_strided_chain():
    full = tables("linear")
    chain = full.strided([0, 100, 500, 999])
    c = Coefficients.of(chain)
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(4, 1, 4, 4, generator=g), torch.randn(4, 1, 4, 4, generator=g)
    t = torch.arange(4)
    xt = q_sample(c, x0, t, eps)
    prediction, at = ddpmkit.build("prediction", "mu"), c.at(t, x0)
    mu = prediction.target(at, x0, eps, xt)
    for i, step in enumerate([0, 100, 500, 999]):
        expected = full.posterior_x0[step] * x0[i].double() + full.posterior_xt[step] * xt[i].double()
        torch.testing.assert_close(mu[i].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(prediction.x0hat(at, xt, mu), x0, rtol=1e-3, atol=1e-2)


def walk(sampler, predict, tables, log_sigma2, noise):
    """Walk with a denoiser and log-variances; a sampler that does not use the sigma axis takes its own."""
    deviations = np.exp(log_sigma2 / 2) if sampler.uses_sigma else np.sqrt(sampler.kernel(tables)[0])
    return sampler.sample(lambda x, t: Denoised(predict(x, t), float(deviations[t])), tables, noise)


def gaussian_world(spec, steps, spread, count=20000):
    """Walk a sampler with the exact denoiser of N(0, spread^2) data, and the exact end of the ODE for its noise."""
    chain = tables("linear")
    sampler = ddpmkit.build("sampler", spec)
    chain = chain.strided(sampler.timesteps(T, steps))
    v = chain.alpha_bars * spread**2 + chain.noise2
    gain = chain.signal * spread**2 / v
    x = torch.randn(count, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = walk(sampler, lambda x, t: gain[t] * x, chain, np.log(chain.b2), lambda k: x)
    # x / sqrt(v) is constant along the probability-flow ODE of Gaussian data, down to t = 1.
    return found, x * math.sqrt(gain[0] ** 2 * v[0] / v[-1])


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_dpm_solver_converges_to_the_flow_and_faster_than_ddim(spread):
    errors = {}
    for spec in ("dpm-solver++:clip=none", "ddim:clip=none"):
        for steps in (160, 320):
            found, exact = gaussian_world(spec, steps, spread)
            errors[spec, steps] = float((found - exact).abs().max())
    assert errors["dpm-solver++:clip=none", 320] < errors["ddim:clip=none", 320] / 4
    # Second order: half the step, about a quarter of the error; DDIM is of first order.
    assert errors["dpm-solver++:clip=none", 160] / errors["dpm-solver++:clip=none", 320] > 3.5
    assert errors["ddim:clip=none", 160] / errors["ddim:clip=none", 320] < 2.5


def test_spacings():
    def steps(spacing, count):
        return ddpmkit.build("sampler", f"ddim:spacing={spacing}").timesteps(T, count)

    assert steps("trailing", 10) == [99, 199, 299, 399, 499, 599, 699, 799, 899, 999]
    quadratic = steps("quadratic", 10)
    assert quadratic == [0, 12, 49, 111, 197, 308, 444, 604, 789, 999]  # 999 (i/9)^2, rounded by hand
    assert steps("quadratic", T) == list(range(T))


def test_dynamic_clipping_scales_each_image_by_its_own_quantile():
    from ddpmkit.diffusion.clipping import clipped

    x = torch.stack([torch.linspace(-0.5, 0.5, 1001), torch.linspace(-4, 4, 1001)])
    found = clipped(x, "dynamic")
    torch.testing.assert_close(found[0], x[0])
    s = torch.quantile(x[1].abs(), 0.995)
    torch.testing.assert_close(found[1], x[1].clamp(-s, s) / s)
    assert float(found.abs().max()) <= 1


def test_without_rederiving_ddim_keeps_the_eps_of_the_raw_estimate():
    chain = tables("linear").strided([0, 500, 999])
    noise = torch.full((1, 1), 1.5, dtype=torch.float64)

    def first_step(spec):
        seen = []

        def predict(x, t):
            seen.append(x)
            return x * 0 + 3.0  # beyond [-1, 1], so that clipping matters

        walk(ddpmkit.build("sampler", spec), predict, chain, np.log(chain.b2), lambda k: noise)
        return float(seen[1])

    m, s = chain.signal, np.sqrt(chain.noise2)
    raw, again = (1.5 - m[2] * 3) / s[2], (1.5 - m[2] * 1) / s[2]
    assert first_step("ddim:rederive=false") == pytest.approx(m[1] * 1 + s[1] * raw)
    assert first_step("ddim") == pytest.approx(m[1] * 1 + s[1] * again)
