"""Worlds whose denoiser is known exactly: samplers, fitted sigmas and the bound against closed forms.

For data N(mu, s^2) every walk is an affine map of its noise, so that mean and variance of what it draws are found
without drawing. V_t = m_t^2 s^2 + S_t^2 is the variance of x_t.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

import ddpmkit
from ddpmkit.diffusion.bound_terms import middle_constant, middle_factor
from ddpmkit.diffusion.reverse_variance import log_variance, step_sigmas
from ddpmkit.diffusion.tables_for import fixed_log_variance, tables_for
from ddpmkit.plugin.interfaces import Denoised

torch.set_num_threads(1)
T = 1000
build = functools.cache(ddpmkit.build)  # components are frozen; looking them up takes longer than these worlds
ANY_SIZE = "analytic:pixels=1e9"  # no limit on the last noisy step


@functools.cache
def tables(schedule, steps=T):
    return tables_for(build("schedule", schedule), steps)


def walk(sampler, x0, chain, deviations, noise):
    """Walk a chain with an exact denoiser x0(x, t); the one place that calls a sampler."""
    return sampler.sample(lambda x, t: Denoised(x0(x, t), float(deviations[t])), chain, noise)


# --- Gaussian data -----------------------------------------------------------------------------------------------


class Gaussian:
    """Data N(mu, s^2), and the marginals multiplied out from the schedule's steps, without the tables."""

    def __init__(self, schedule, times, mu, s, steps=T):
        a, b2 = build("schedule", schedule).steps(steps)
        m, s2 = [1.0], [0.0]
        for factor, added in zip(a, b2, strict=True):
            m.append(factor * m[-1])
            s2.append(factor**2 * s2[-1] + added)
        chosen = [0, *(t + 1 for t in times)]
        self.m, self.s2 = np.asarray(m)[chosen], np.asarray(s2)[chosen]
        self.mu, self.s = mu, s
        self.v = self.m**2 * s**2 + self.s2
        self.gain = self.m * s**2 / self.v
        self.left = s**2 * self.s2 / self.v  # Var(x0 | x_t)
        self.prior = build("schedule", schedule).prior_variance(steps)

    def x0(self, x, t):
        return self.mu + self.gain[t + 1] * (x - self.m[t + 1] * self.mu)

    def statistics(self):
        """What fitting finds with an exact denoiser, a step each."""
        return {"eps_squared": (self.s2 / self.v)[1:], "error": self.left[1:], "error_clipped": self.left[1:]}


def law_of(sampler, world, chain, deviations):
    """Mean and variance of what a walk draws, from its answers to unit impulses of noise; float64."""

    def impulse(k):
        noise = torch.zeros(chain.T + 1, 1, dtype=torch.float64)
        noise[k + 1] = 1.0
        return noise

    out = walk(sampler, world.x0, chain, deviations, impulse)[:, 0]
    return float(out[0]), float((out[1:] - out[0]).square().sum())


def expected_law(kind, world, variances, eta=0.0):
    """The same from the joint Gaussian of neighbouring steps; of the tables only the reverse variances are taken."""
    w, mean, variance = world, 0.0, world.prior
    if kind == "dpm-solver++":
        return _expected_of_dpm_solver(w)
    for t in range(len(w.m) - 1, 0, -1):
        if kind == "ancestral":
            slope = (w.m[t] / w.m[t - 1]) * w.v[t - 1] / w.v[t]  # Cov(x_{t-1}, x_t) / Var(x_t)
        else:
            added = eta**2 * (w.s2[t] - (w.m[t] / w.m[t - 1]) ** 2 * w.s2[t - 1]) * w.s2[t - 1] / w.s2[t]
            slope = w.m[t - 1] * w.gain[t] + math.sqrt(w.s2[t - 1] - added) * math.sqrt(w.s2[t]) / w.v[t]
        mean = w.m[t - 1] * w.mu + slope * (mean - w.m[t] * w.mu)
        variance = slope**2 * variance + (variances[t - 1] if t > 1 else 0.0)
    return mean, variance


def _expected_of_dpm_solver(w):
    """Lu et al. 2022, Algorithm 2, on the affine map x = c + g x_T; the first step from no signal in its limit."""
    x, before, h_before = np.array([0.0, 1.0]), None, 0.0  # c and g
    shift = np.array([1.0, 0.0])

    def x0(x, t):
        return w.gain[t] * x + (w.mu - w.gain[t] * w.m[t] * w.mu) * shift

    for t in range(len(w.m) - 1, 1, -1):
        now = x0(x, t)
        sigma, sigma_s = math.sqrt(w.s2[t]), math.sqrt(w.s2[t - 1])
        if w.m[t] == 0:
            x = w.m[t - 1] * now + sigma_s / sigma * x
            continue
        h = math.log(w.m[t - 1] / sigma_s) - math.log(w.m[t] / sigma)
        d = now if before is None else (1 + h / (2 * h_before)) * now - h / (2 * h_before) * before
        x = sigma_s / sigma * x + w.m[t - 1] * (1 - math.exp(-h)) * d
        before, h_before = now, h
    x = x0(x, 1)
    return x[0], x[1] ** 2 * w.prior


WALKS = {
    "ancestral:clip=none": ("ancestral", 0.0),
    "ddim:clip=none": ("ddim", 0.0),
    "ddim:clip=none:eta=0.5": ("ddim", 0.5),
    "ddim:clip=none:eta=1.0:rederive=false": ("ddim", 1.0),
    "dpm-solver++:clip=none": ("dpm-solver++", 0.0),
}


@pytest.mark.long
@pytest.mark.parametrize("sigma", ["beta", "beta-tilde", "interpolate:w=0.3", ANY_SIZE, "optimal"])
@pytest.mark.parametrize("text", WALKS)
@pytest.mark.parametrize("schedule", ["linear", "cosine", "zero-snr", "random-walk"])
@pytest.mark.parametrize("spacing", ["even", "quadratic"])
def test_a_walk_draws_the_gaussian_that_the_algebra_says(schedule, text, sigma, spacing):
    sampler, sigma = build("sampler", f"{text}:spacing={spacing}"), build("sigma", sigma)
    full, times = tables(schedule), list(sampler.timesteps(T, 12))
    chain = full.strided(times)
    everywhere, world = Gaussian(schedule, range(T), 0.4, 0.5), Gaussian(schedule, times, 0.4, 0.5)
    deviations = step_sigmas(sampler, sigma, full, chain, 256, everywhere.statistics())
    mean, variance = law_of(sampler, world, chain, deviations)
    kind, eta = WALKS[text]
    expected = expected_law(kind, world, deviations**2, eta)
    # What adds the noise is asked apart: here only that the walk adds what it was told to, in the right step.
    assert mean == pytest.approx(expected[0], rel=1e-9, abs=1e-10)
    assert variance == pytest.approx(expected[1], rel=1e-9)


@pytest.mark.parametrize("sigma", [ANY_SIZE, "optimal"])
@pytest.mark.parametrize("text", [t for t in WALKS if not t.startswith("dpm")])
@pytest.mark.parametrize("count", [5, 50, T])
@pytest.mark.parametrize(("mu", "s"), [(0.0, 1.0), (0.4, 0.5), (-0.3, 0.05)])
def test_with_a_fitted_sigma_any_number_of_steps_draws_the_data(text, sigma, count, mu, s):
    """The law of total variance: Var(x0hat of the last step) + Var(x0 | x_1) is the variance of the data."""
    sampler, sigma = build("sampler", text), build("sigma", sigma)
    full, times = tables("cosine"), list(sampler.timesteps(T, count))
    chain, world = full.strided(times), Gaussian("cosine", times, mu, s)
    statistics = Gaussian("cosine", range(T), mu, s).statistics()
    mean, variance = law_of(sampler, world, chain, step_sigmas(sampler, sigma, full, chain, 256, statistics))
    assert mean == pytest.approx(mu, abs=1e-4)  # x_T starts at 0 and not at m_T mu
    assert variance + world.left[1] == pytest.approx(s**2, rel=1e-6)


@pytest.mark.parametrize(("sigma", "sign"), [("beta", 1), ("beta-tilde", -1)])
def test_the_two_bounds_draw_too_much_and_too_little(sigma, sign):
    sampler = build("sampler", "ancestral:clip=none")
    times = list(sampler.timesteps(T, 10))
    full, world = tables("linear"), Gaussian("linear", times, 0.0, 0.5)
    chain = full.strided(times)
    deviations = step_sigmas(sampler, build("sigma", sigma), full, chain, 256, None)
    _, variance = law_of(sampler, world, chain, deviations)
    assert sign * (variance + world.left[1] - 0.25) > 0.01


def test_deterministic_walks_converge_to_the_data():
    """DDIM loses variance in proportion to its step, DPM-Solver++ (2M) to its square."""
    lost = {}
    for text in ("ddim:clip=none", "dpm-solver++:clip=none"):
        for count in (125, 250):
            sampler = build("sampler", text)
            times = list(sampler.timesteps(T, count))
            chain, world = tables("cosine").strided(times), Gaussian("cosine", times, 0.4, 0.5)
            _, variance = law_of(sampler, world, chain, np.zeros(count))
            # x0hat at the end of the exact flow: gain^2 V_1
            lost[text, count] = abs(variance - world.gain[1] ** 2 * world.v[1])
    assert 1.7 < lost["ddim:clip=none", 125] / lost["ddim:clip=none", 250] < 2.3
    assert lost["dpm-solver++:clip=none", 250] < lost["ddim:clip=none", 250] / 5
    assert lost["ddim:clip=none", 250] < 0.02


# --- a Gaussian mixture ------------------------------------------------------------------------------------------

SHARES = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([[-0.6, 0.2], [0.4, -0.1]], dtype=torch.float64)
COVARIANCES = torch.tensor([[[0.04, 0.01], [0.01, 0.02]], [[0.02, -0.01], [-0.01, 0.05]]], dtype=torch.float64)


def mixture_x0(chain):
    """E[x0 | x_t]: each component's regression of x0 on x_t, weighed by its responsibility."""
    eye = torch.eye(2, dtype=torch.float64)
    inverse, gains, logs = [], [], []
    for m, v in zip(chain.signal.tolist(), chain.noise2.tolist(), strict=True):
        total = m**2 * COVARIANCES + v * eye
        inverse.append(torch.linalg.inv(total))
        gains.append(m * COVARIANCES @ inverse[-1])
        logs.append(torch.log(SHARES) - 0.5 * torch.logdet(total))

    def x0(x, t):
        away = x[:, None] - chain.signal[t] * MEANS
        score = logs[t] - 0.5 * torch.einsum("nki,kij,nkj->nk", away, inverse[t], away)
        each = MEANS + torch.einsum("kij,nkj->nki", gains[t], away)
        return torch.einsum("nk,nki->ni", torch.softmax(score, 1), each)

    return x0


def mixture_moments():
    mean = SHARES @ MEANS
    apart = MEANS - mean
    return mean, torch.einsum("k,kij->ij", SHARES, COVARIANCES) + torch.einsum("k,ki,kj->ij", SHARES, apart, apart)


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "sigma", "count"),
    [
        ("ancestral:clip=none", "beta", 500),
        ("ancestral:clip=none", "beta-tilde", 500),
        ("ddim:clip=none", "beta", 500),
        ("ddim:clip=none:eta=0.5", "beta", 500),
        ("dpm-solver++:clip=none", "beta", 150),
    ],
)
def test_a_walk_draws_the_mixture(text, sigma, count):
    sampler, n = build("sampler", text), 2000
    chain = tables("cosine").strided(sampler.timesteps(T, count))
    deviations = step_sigmas(sampler, build("sigma", sigma), tables("cosine"), chain, 256, None)
    generator = torch.Generator().manual_seed(0)
    # Each draw and its mirror image, so that the errors of the means nearly cancel.
    half = lambda k: torch.randn(n // 2, 2, generator=generator, dtype=torch.float64)  # noqa: E731 - a formula

    def noise(k):
        z = half(k)
        return torch.cat([z, -z])

    x = walk(sampler, mixture_x0(chain), chain, deviations, noise)
    mean, covariance = mixture_moments()
    found = torch.cov(x.T)
    assert float((x.mean(0) - mean).abs().max()) < 5 * math.sqrt(float(covariance.diagonal().max()) / n)
    assert float((found - covariance).abs().max()) < 5 * math.sqrt(2 / n) * float(covariance.diagonal().max()) + 0.003
    share = float((x[:, 0] < -0.1).double().mean())
    exact = sum(
        float(w) * norm.cdf(-0.1, float(m[0]), math.sqrt(float(c[0, 0])))
        for w, m, c in zip(SHARES, MEANS, COVARIANCES, strict=True)
    )
    assert share == pytest.approx(exact, abs=5 * math.sqrt(0.25 / n))


# --- fitted variances --------------------------------------------------------------------------------------------

LINE = ((0.3, -0.6, 0.2), (0.7, 0.4, 0.1))  # share, mean, standard deviation


def on_the_line(m, v):
    """(E eps-hat^2, E Var(x0 | x_t)) of the mixture on the line, by quadrature over x_t."""

    def parts(x):
        density = [w * norm.pdf(x, m * mu, math.sqrt(m**2 * s**2 + v)) for w, mu, s in LINE]
        each = [mu + m * s**2 / (m**2 * s**2 + v) * (x - m * mu) for _, mu, s in LINE]
        left = [s**2 * v / (m**2 * s**2 + v) for _, _, s in LINE]
        total = sum(density)
        if total == 0:
            return 0.0, 0.0, 0.0
        share = [d / total for d in density]
        first = sum(r * e for r, e in zip(share, each, strict=True))
        second = sum(r * (e**2 + c) for r, e, c in zip(share, each, left, strict=True))
        return total, first, second - first**2

    def eps_squared(x):
        total, first, _ = parts(x)
        return total * (x - m * first) ** 2 / v

    def variance(x):
        total, _, second = parts(x)
        return total * second

    options = {"limit": 200, "points": [-0.6 * m, 0.0, 0.4 * m], "epsabs": 1e-12}
    return quad(eps_squared, -9, 9, **options)[0], quad(variance, -9, 9, **options)[0]


@pytest.mark.long
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_analytic_finds_what_is_not_known_of_x0_in_a_world_that_is_not_gaussian(schedule):
    """S^2 / m^2 (1 - E eps-hat^2) = E Var(x0 | x_t) for any data; Bao et al. 2022, theorem 1 and lemma 7."""
    chain = tables(schedule)
    steps = [20, 100, 300, 500, 800]
    eps_squared, exact = np.ones(T), np.zeros(T)
    for t in steps:
        eps_squared[t], exact[t] = on_the_line(chain.signal[t], chain.noise2[t])
    found = build("sigma", "analytic").x0_variance(chain, {"eps_squared": eps_squared})
    np.testing.assert_allclose(found[steps], exact[steps], rtol=1e-6)
    assert np.all(np.diff(exact[steps]) > 0)


# --- the bound ---------------------------------------------------------------------------------------------------


def middle_bits(chain, log_sigma2, s):
    """Sum of L_{t-1}, t = 2..T, in bits per dimension, for N(0, s^2) and its exact denoiser."""
    error = s**2 * chain.noise2 / (chain.alpha_bars * s**2 + chain.noise2)
    nats = middle_factor(chain, log_sigma2) * error + middle_constant(chain, log_sigma2)
    return float(nats[1:].sum()) / math.log(2)


@pytest.mark.parametrize(
    ("schedule", "sigma", "golden", "variance_term"),
    [
        ("linear", "beta-tilde", 6.302437, 0.0),
        ("linear", "beta", 5.645641, 0.486419),
        ("cosine", "beta-tilde", 6.862413, 0.0),
        ("cosine", "beta", 6.282997, 0.432447),
    ],
)
def test_golden_sums_of_the_bound(schedule, sigma, golden, variance_term):
    chain = tables(schedule)
    log_sigma2 = fixed_log_variance(build("sigma", sigma), chain)
    assert middle_bits(chain, log_sigma2, 0.5) == pytest.approx(golden, abs=6e-7)
    assert float(middle_constant(chain, log_sigma2).sum()) / math.log(2) == pytest.approx(variance_term, abs=6e-7)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid", "quadratic", "zero-snr"])
@pytest.mark.parametrize("s", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("count", [10, T])
def test_the_bound_orders_the_sigmas(schedule, s, count):
    """The fitted ones are the smallest; between beta-tilde and beta the bound falls to one minimum and rises again."""
    full = tables(schedule)
    chain = full.strided(build("sampler", "ancestral").timesteps(T, count))
    left = s**2 * chain.noise2 / (chain.alpha_bars * s**2 + chain.noise2)
    statistics = {"eps_squared": chain.noise2 / (chain.alpha_bars * s**2 + chain.noise2), "error_clipped": left}
    best = [middle_bits(chain, log_variance(build("sigma", k), chain, statistics), s) for k in ("analytic", "optimal")]
    assert best[0] == pytest.approx(best[1], rel=1e-7)  # 1 - eps^2 cancels where the signal is weak
    between = [
        middle_bits(chain, fixed_log_variance(build("sigma", f"interpolate:w={w / 20}"), chain), s) for w in range(21)
    ]
    assert best[0] <= min(between) * (1 + 1e-7)
    lowest = int(np.argmin(between))
    assert np.all(np.diff(between[: lowest + 1]) < 0)
    assert np.all(np.diff(between[lowest:]) > 0)
    assert between[0] == pytest.approx(middle_bits(chain, fixed_log_variance(build("sigma", "beta-tilde"), chain), s))
    assert between[-1] == pytest.approx(middle_bits(chain, fixed_log_variance(build("sigma", "beta"), chain), s))
    if s == 1.0 and schedule != "zero-snr":
        assert lowest == 20  # beta is the exact reverse variance of unit data
        assert best[0] == pytest.approx(between[-1], rel=1e-9)


def test_for_a_single_image_beta_tilde_is_the_exact_one():
    chain = tables("linear")
    sums = [middle_bits(chain, fixed_log_variance(build("sigma", k), chain), 0.0) for k in ("beta-tilde", "beta")]
    assert sums[0] == pytest.approx(0, abs=1e-9)
    assert sums[1] == pytest.approx(0.486419, abs=6e-7)
