"""The bound in worlds where it is known: Gaussian data with the exact denoiser, a single image, the decoder's bins."""

import math
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import torch

from ddpmkit.builtin.schedules.constant import Constant
from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.cosine_gamma import CosineGamma
from ddpmkit.builtin.schedules.jsd import Jsd
from ddpmkit.builtin.schedules.laplace import Laplace
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.schedules.one_minus_t import OneMinusT
from ddpmkit.builtin.schedules.quadratic import Quadratic
from ddpmkit.builtin.schedules.random_walk import RandomWalk
from ddpmkit.builtin.schedules.sigmoid import Sigmoid
from ddpmkit.builtin.schedules.sigmoid_gamma import SigmoidGamma
from ddpmkit.builtin.schedules.warmup import Warmup
from ddpmkit.builtin.schedules.zero_snr import ZeroSnr
from ddpmkit.builtin.sigmas.beta import Beta
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde
from ddpmkit.diffusion.bound_terms import (
    bits_per_dim,
    decoder_density_nll,
    decoder_nll,
    decoder_terms,
    log_ndtr_difference,
    middle_constant,
    middle_factor,
    middle_terms,
    prior_kl,
)
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Schedule

torch.set_num_threads(1)
H = 2.047095585180641  # 1/2 log2(2 pi e), the entropy of N(0, 1)
VP = [Linear(), Cosine(), Quadratic(), Sigmoid(), Cosine(s=0.1, max_beta=0.9), Linear(beta_1=1e-3, beta_T=0.01)]
VP += [Constant(), CosineGamma(), Jsd(), Laplace(), OneMinusT(), SigmoidGamma(), Warmup(), ZeroSnr(), ZeroSnr(Cosine())]
SCALED = (Linear, Quadratic, Sigmoid, Constant, Warmup)  # by 1000/T, so that ten steps are too few


@dataclass(frozen=True)
class Walk(Schedule):
    """A chain off the variance-preserving family whose prior is the marginal of unit Gaussian data."""

    name = "walk"
    shrink: float = 1.0

    def steps(self, T):
        return np.full(T, self.shrink), np.linspace(0.001, 0.2, T)

    def prior_variance(self, T):
        a, b2 = self.steps(T)
        variance = 1.0
        for t in range(T):
            variance = a[t] ** 2 * variance + b2[t]
        return float(variance)


def printed(text):
    """What a value printed as ``text`` can be: within half a unit of its last digit."""
    mantissa, _, exponent = text.lower().partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return pytest.approx(float(text), rel=0, abs=0.51 * unit)


def gaussian_world(tables, log_sigma2, decoder_log_variance, s=1.0):
    """The bound of N(0, s^2) with its exact denoiser, in bits/dim: total, L_T, middle, L_0, and the squared errors.

    The package's terms, the expectations in closed form: E x0^2 = s^2 and E (x0 - x0hat)^2 = s^2 S^2 / v,
    v = m^2 s^2 + S^2.
    """
    error = s**2 * tables.noise2 / (tables.signal**2 * s**2 + tables.noise2)
    prior = float(prior_kl(tables, torch.full((1, 1, 1, 1), s, dtype=torch.float64)))
    middle = (middle_constant(tables, log_sigma2) + middle_factor(tables, log_sigma2) * error).sum()
    miss = torch.tensor(math.sqrt(error[0]), dtype=torch.float64)
    decoder = float(decoder_density_nll(miss, torch.zeros_like(miss), math.exp(decoder_log_variance / 2)))
    parts = [bits_per_dim(v, 1) for v in (prior, middle, decoder)]
    return sum(parts), *parts


@pytest.mark.parametrize("T", [10, 100, 1000, 4000])
@pytest.mark.parametrize("schedule", VP, ids=str)
def test_unit_gaussian_data_cost_their_entropy_whatever_the_schedule_and_its_length(schedule, T):
    """sigma^2 = beta is the exact reverse variance of unit Gaussian data, so that the bound is tight."""
    if T == 10 and (isinstance(schedule, SCALED) or schedule == ZeroSnr()):
        with pytest.raises(DdpmkitError, match="below 1"):
            tables_for(schedule, T)
        return
    tables = tables_for(schedule, T)
    total, *_ = gaussian_world(tables, fixed_log_variance(Beta(), tables), decoder_log_variance(tables, "beta1"))
    assert total == pytest.approx(H, abs=1e-12)


@pytest.mark.parametrize("times", [[0, 999], [3, 20, 999], list(range(0, 1000, 27))])
def test_the_entropy_is_kept_by_a_strided_chain(times):
    tables = tables_for(Linear(), 1000).strided(times)
    total, *_ = gaussian_world(tables, fixed_log_variance(Beta(), tables), decoder_log_variance(tables, "beta1"))
    assert total == pytest.approx(H + marginal_gap(tables, 1.0), abs=1e-12)


def marginal_gap(tables, s):
    """KL(q(x_T) || p(x_T)) of N(0, s^2) data, bits: what is lost when the chain does not end in its prior."""
    v = (tables.signal[-1] ** 2 * s**2 + tables.noise2[-1]) / tables.prior_variance
    return 0.5 * (v - 1 - math.log(v)) / math.log(2)


@pytest.mark.parametrize("s", [0.01, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    "schedule", [*VP[:4], Laplace(), OneMinusT(), RandomWalk(step=0.05), Walk(), Walk(0.9)], ids=str
)
def test_with_the_optimal_variance_any_gaussian_costs_its_entropy_and_the_gap_at_the_end(schedule, s):
    """The true reverse steps are Gaussian; s_t* = b_t^2 v_{t-1} / v_t by Bayes' rule, written without the tables."""
    a, b2 = schedule.steps(500)
    v = [s**2]
    for t in range(500):
        v.append(a[t] ** 2 * v[-1] + b2[t])
    v = np.asarray(v)
    optimal = b2 * v[:-1] / v[1:]
    tables = tables_for(schedule, 500)
    total, *_ = gaussian_world(tables, np.log(optimal), math.log(optimal[0]), s)
    assert total == pytest.approx(H + math.log2(s) + marginal_gap(tables, s), abs=1e-10)


@pytest.mark.parametrize(
    ("schedule", "T", "s", "sigma", "decoder", "total"),
    [
        (Linear(), 1000, 1.0, Beta(), "beta1", "2.047095585"),
        (Linear(), 1000, 1.0, Beta(), "tilde2", "2.211133656"),
        (Linear(), 1000, 1.0, BetaTilde(), "tilde2", "2.881831499"),
        (Linear(), 1000, 0.5, Beta(), "beta1", "1.048671376"),
        (Linear(), 1000, 0.5, Beta(), "tilde2", "1.212529066"),
        (Linear(), 1000, 0.5, BetaTilde(), "tilde2", "1.8693249"),
        (Linear(), 100, 1.0, Beta(), "beta1", "2.047095585"),
        (Linear(), 100, 1.0, Beta(), "tilde2", "2.079644865"),
        (Linear(), 100, 1.0, BetaTilde(), "tilde2", "4.022212355"),
        (Cosine(), 1000, 1.0, Beta(), "beta1", "2.047095585"),
        (Cosine(), 1000, 1.0, Beta(), "tilde2", "2.23149528"),
        (Cosine(), 1000, 1.0, BetaTilde(), "tilde2", "2.818154514"),
    ],
)
def test_golden_totals(schedule, T, s, sigma, decoder, total):
    tables = tables_for(schedule, T)
    got, *_ = gaussian_world(tables, fixed_log_variance(sigma, tables), decoder_log_variance(tables, decoder), s)
    assert got == printed(total)


def test_golden_terms():
    tables = tables_for(Linear(), 1000)
    _, *beta = gaussian_world(tables, fixed_log_variance(Beta(), tables), decoder_log_variance(tables, "beta1"))
    assert beta == [printed("2.9112945e-05"), printed("6.643827077"), printed("-4.596760605")]
    _, *tilde = gaussian_world(tables, fixed_log_variance(BetaTilde(), tables), decoder_log_variance(tables))
    assert tilde[1:] == [printed("7.31452492"), printed("-4.432722533")]


@pytest.mark.parametrize(
    ("schedule", "tilde", "beta"),
    [(Linear(), "6.302437", "5.645641"), (Cosine(), "6.862413", "6.282997")],
    ids=["linear", "cosine"],
)
def test_golden_middle_sum_of_concentrated_data(schedule, tilde, beta):
    tables = tables_for(schedule, 1000)
    for sigma, value in ((BetaTilde(), tilde), (Beta(), beta)):
        _, _, middle, _ = gaussian_world(tables, fixed_log_variance(sigma, tables), 0.0, 0.5)
        assert middle == printed(value)


@pytest.mark.parametrize(
    ("T", "s", "excess"), [(1000, 0.1, "0.0283"), (100, 0.1, "0.263"), (1000, 0.01, "0.451"), (100, 0.01, "2.03")]
)
def test_golden_excess_of_beta_on_concentrated_data(T, s, excess):
    tables = tables_for(Linear(), T)
    total, *_ = gaussian_world(tables, fixed_log_variance(Beta(), tables), decoder_log_variance(tables, "beta1"), s)
    assert total - (H + math.log2(s)) == printed(excess)


@pytest.mark.parametrize(
    ("schedule", "T", "value"),
    [
        (Linear(), 1000, "2.911294542e-05"),
        (Linear(), 100, "1.470849064e-05"),
        # by forty-digit arithmetic; ln(1 - 2.4e-9) in float64 without log1p gives ...498|50e-09
        (Cosine(), 1000, "1.75198498825e-09"),
        (Linear(2e-5, 4e-3), 200, "0.1022684"),
        (Linear(1e-5, 2e-3), 100, "0.3259555"),
    ],
)
def test_golden_prior_term_of_unit_data(schedule, T, value):
    """E x0^2 = 1, here by the image whose every pixel is at an end of the range."""
    x0 = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 1, 2, 2)
    assert bits_per_dim(float(prior_kl(tables_for(schedule, T), x0)), 4) == printed(value)


def test_golden_prior_term_of_black_and_of_uniform_images():
    grey = torch.zeros(1, 1, 2, 2)
    assert bits_per_dim(float(prior_kl(tables_for(Linear(), 1000), grey)), 4) == printed("5.875e-10")
    uniform = torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16)
    assert bits_per_dim(float(prior_kl(tables_for(Linear(), 1000), uniform)), 256) == printed("9.8e-6")
    assert bits_per_dim(float(prior_kl(tables_for(Cosine(), 1000), uniform)), 256) == printed("5.9e-10")


@pytest.mark.parametrize("schedule", [Linear(), Walk(0.9)], ids=str)
def test_prior_term_is_the_kl_of_torch_and_one_number_an_image(schedule):
    tables = tables_for(schedule, 20) if isinstance(schedule, Walk) else tables_for(schedule, 30)
    x0 = torch.rand(5, 2, 3, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    q = torch.distributions.Normal(tables.signal[-1] * x0.double(), math.sqrt(tables.noise2[-1]))
    p = torch.distributions.Normal(torch.zeros_like(x0.double()), math.sqrt(tables.prior_variance))
    expected = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(prior_kl(tables, x0), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("sigma", [Beta(), BetaTilde()], ids=lambda s: s.name)
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Walk(0.9)], ids=str)
def test_a_middle_term_is_the_kl_of_two_gaussians(schedule, sigma):
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), both Gaussians written out at one x_t, x_0 and x0hat."""
    tables = tables_for(schedule, 60)
    log_sigma2 = fixed_log_variance(sigma, tables)
    ours = middle_constant(tables, log_sigma2) + middle_factor(tables, log_sigma2) * (0.3 - -0.2) ** 2
    assert ours[0] == 0
    for t in (1, 2, 30, 59):
        a2 = (tables.signal[t] / tables.signal[t - 1]) ** 2
        before = tables.noise2[t - 1]
        step = tables.noise2[t] - a2 * before
        precision = 1 / before + a2 / step

        def mean(x0, t=t, a2=a2, before=before, step=step, precision=precision):
            return (tables.signal[t - 1] * x0 / before + math.sqrt(a2) * 0.9 / step) / precision

        q, p = (
            torch.distributions.Normal(*torch.tensor(v, dtype=torch.float64))
            for v in ((mean(0.3), precision**-0.5), (mean(-0.2), math.exp(log_sigma2[t] / 2)))
        )
        assert ours[t] == pytest.approx(float(torch.distributions.kl_divergence(q, p)), rel=1e-7)


@pytest.mark.parametrize(
    ("schedule", "T", "value"),
    [(Linear(), 1000, "0.486419"), (Cosine(), 1000, "0.432447"), (Linear(), 100, "1.002356")],
)
def test_golden_cost_of_beta_where_beta_tilde_is_right(schedule, T, value):
    """A single image with the exact denoiser: with beta-tilde the middle is free, with beta it costs its constant."""
    tables = tables_for(schedule, T)
    np.testing.assert_allclose(middle_constant(tables, fixed_log_variance(BetaTilde(), tables)), 0, atol=1e-15)
    constant = middle_constant(tables, fixed_log_variance(Beta(), tables))
    assert (constant >= 0).all()
    assert bits_per_dim(constant.sum(), 1) == printed(value)


@pytest.mark.parametrize(
    ("pixel", "choice", "value"),
    [(0.0, "tilde2", "1.305378"), (0.0, "beta1", "1.7128"), (1.0, "tilde2", "0.510"), (-1.0, "beta1", "0.616")],
)
def test_golden_decoder_of_a_single_image(pixel, choice, value):
    sigma = math.exp(decoder_log_variance(tables_for(Linear(), 1000), choice) / 2)
    x = torch.full((1,), pixel, dtype=torch.float64)
    assert bits_per_dim(float(decoder_nll(x, x, sigma, 256)), 1) == printed(value)


def grey(levels):
    return -1 + 2 * torch.arange(levels, dtype=torch.float64) / (levels - 1)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("sigma", [0.002, 0.0074, 0.1, 3.0])
@pytest.mark.parametrize("mean", [-1.7, -1.0, -0.9963, 0.0, 0.31, 1.0, 25.0])
def test_the_bins_of_the_decoder_sum_to_one(levels, sigma, mean):
    x = grey(levels)
    mass = torch.exp(-decoder_nll(x, torch.full_like(x, mean), sigma, levels)).sum()
    assert float(mass) == pytest.approx(1, abs=1e-12)


def exact_nll(level, levels, mean, sigma):
    """-ln of the mass of one bin with eighty digits after the first, so that no tail cancels."""
    with mpmath.workdps(80):
        x, half = mpmath.mpf(2 * level) / (levels - 1) - 1, mpmath.mpf(1) / (levels - 1)
        root = mpmath.mpf(sigma) * mpmath.sqrt(2)
        above = mpmath.mpf(1) if level == levels - 1 else None
        # whichever tail is small: erfc of a positive number loses nothing
        if x >= mean:
            low = mpmath.erfc((x - half - mean) / root) if level else mpmath.mpf(2)
            high = mpmath.erfc((x + half - mean) / root) if above is None else mpmath.mpf(0)
        else:
            low = mpmath.erfc((mean - x - half) / root) if above is None else mpmath.mpf(2)
            high = mpmath.erfc((mean - x + half) / root) if level else mpmath.mpf(0)
        return float(-mpmath.log((low - high) / 2))


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("sigma", [0.0047, 0.0074, 0.05, 0.7])
@pytest.mark.parametrize("mean", [-1.3, -1.0, -0.2, 0.003, 0.9, 1.0, 2.0])
def test_the_decoder_agrees_with_eighty_digits_far_in_both_tails(levels, sigma, mean):
    x = grey(levels)
    ours = decoder_nll(x, torch.full_like(x, mean), sigma, levels)
    for level in sorted({0, 1, levels // 3, levels // 2, levels - 2, levels - 1}):
        expected = exact_nll(level, levels, mean, sigma)
        assert float(ours[level]) == pytest.approx(expected, rel=1e-11, abs=1e-15), level


def test_the_decoder_has_no_floor():
    """A clamp of the probability at 1e-12, as usual elsewhere, would stop at 27.6 nats; this pixel is 270 sigma off."""
    x, mean = torch.tensor([1.0]).double(), torch.tensor([-1.0]).double()
    nll = float(decoder_nll(x, mean, 0.0074, 256))
    assert nll == pytest.approx(exact_nll(255, 256, -1.0, 0.0074), rel=1e-12)
    assert nll > 3e4


@pytest.mark.parametrize("levels", [17, 256])
def test_the_decoder_is_the_same_seen_from_the_other_side(levels):
    x = grey(levels)
    mean = torch.linspace(-1.2, 1.2, levels, dtype=torch.float64)
    torch.testing.assert_close(decoder_nll(x, mean, 0.03, levels), decoder_nll(-x, -mean, 0.03, levels))


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("miss", [0.0, 0.004, 0.05, 0.3, 2.0])
def test_in_float32_the_decoder_keeps_its_value_and_its_slope(levels, miss):
    """Training takes gradients of it at single precision; towards the pixel is down."""
    sigma = 0.01
    for level in (0, 1, levels // 2, levels - 2, levels - 1):
        x = float(grey(levels)[level])
        target = x - miss if level > levels // 2 else x + miss
        mean = torch.tensor([target], dtype=torch.float32, requires_grad=True)
        nll = decoder_nll(torch.tensor([x], dtype=torch.float32), mean, sigma, levels)
        nll.sum().backward()
        at = float(mean.detach())
        assert float(nll.detach()) == pytest.approx(exact_nll(level, levels, at, sigma), rel=2e-4, abs=2e-6), level
        step = 1e-6
        ahead, behind = (exact_nll(level, levels, at + d, sigma) for d in (step, -step))
        assert float(mean.grad) == pytest.approx((ahead - behind) / (2 * step), rel=5e-3, abs=2e-2), level


def test_interval_mass_of_the_normal():
    upper = torch.tensor([1.0, 0.0, 9.0, -8.0, 40.0, 0.5], dtype=torch.float64)
    lower = torch.tensor([-1.0, -30.0, 8.0, -9.0, 39.0, 0.5 - 1e-9], dtype=torch.float64)
    ours = log_ndtr_difference(upper, lower)
    with mpmath.workdps(400):
        for i, (u, lo) in enumerate(zip(upper.tolist(), lower.tolist(), strict=True)):
            expected = float(mpmath.log(mpmath.ncdf(u) - mpmath.ncdf(lo)))
            # a sliver of 1e-9 has seven digits left when it is two float64 apart
            assert float(ours[i]) == pytest.approx(expected, rel=1e-12, abs=1e-6 if i == 5 else 1e-15), i


def test_a_continuous_decoder_is_the_density_of_torch():
    x, mean = torch.tensor([0.3, -1.0]).double(), torch.tensor([0.1, 0.4]).double()
    expected = -torch.distributions.Normal(mean, 0.2).log_prob(x)
    torch.testing.assert_close(decoder_density_nll(x, mean, 0.2), expected)


def test_bits_per_dim_divides_by_dims_and_by_ln_2():
    assert bits_per_dim(64 * math.log(17), 64) == pytest.approx(math.log2(17))


@pytest.mark.parametrize(
    ("decoder", "choice", "value"),
    [("softmax", "beta1", 2.3977), ("cdf", "beta1", 2.3986), ("cdf", "tilde2", 2.5136)],
)
def test_golden_decoders_of_a_pixel_without_a_network(decoder, choice, value):
    """x_1 / m_1 stands for the mean, so that it misses by sqrt(1/alpha-bar_1 - 1) eps; 128 of 256 levels.

    The printed values are a Monte-Carlo mean, all three 2e-4 below the integral on one set of draws.
    """
    tables = tables_for(Linear(), 1000)
    eps = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    density = torch.exp(-(eps**2) / 2) / math.sqrt(2 * math.pi) * (eps[1] - eps[0])
    x0 = grey(256)[128].expand(len(eps))
    mean = x0 + math.sqrt(1 / tables.alpha_bars[0] - 1) * eps
    nats = decoder_terms(decoder, x0, mean, decoder_log_variance(tables, choice), 256)
    assert bits_per_dim(float((nats * density).sum()), 1) == pytest.approx(value, abs=3e-4)


def test_golden_decoder_of_published_code_far_off():
    """Ten bins off costs 78.1 bits, but with the clamp at 1e-12 only 39.86; five bins off, tanh costs 2 more."""
    log_variance = decoder_log_variance(tables_for(Linear(), 1000))
    x0 = grey(256)[128:129]

    def cost(decoder, bins):
        return float(decoder_terms(decoder, x0, x0 + bins * 2 / 255, log_variance, 256)) / math.log(2)

    assert (cost("cdf", 10), cost("cdf-tanh", 10)) == (printed("78.1"), printed("39.86"))
    assert cost("cdf-tanh", 5) - cost("cdf", 5) == pytest.approx(2, abs=0.2)
    assert cost("cdf-tanh", 0) - cost("cdf", 0) == pytest.approx(3e-4, abs=3e-4)


def test_the_tanh_decoder_is_within_its_known_distance_of_the_exact_one():
    x0, mean = grey(17), torch.zeros(17, dtype=torch.float64)
    exact, other = (torch.exp(-decoder_terms(d, x0, mean, 2 * math.log(0.5), 17)) for d in ("cdf", "cdf-tanh"))
    assert 1e-6 < float((exact - other).abs().max()) < 2 * 1.8e-4
    assert float(other.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("mean", [-1.4, 0.0, 0.33, 1.0])
@pytest.mark.parametrize("log_variance", [-9.8, -3.0, 1.0])
def test_the_softmax_decoder_is_torchs_softmax(mean, log_variance):
    x0 = grey(17)
    ours = decoder_terms("softmax", x0, torch.full_like(x0, mean), log_variance, 17)
    expected = -torch.log_softmax(-0.5 * (mean - x0).square() / math.exp(log_variance), 0)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decoder", ["cdf", "cdf-tanh", "softmax", "continuous"])
def test_a_decoder_may_have_a_variance_for_each_pixel(decoder):
    x0, mean = grey(17), torch.linspace(-1, 0.9, 17, dtype=torch.float64)
    own = torch.linspace(-8, -1, 17, dtype=torch.float64)
    ours = decoder_terms(decoder, x0, mean, own, 17)
    one_by_one = [decoder_terms(decoder, x0[i : i + 1], mean[i : i + 1], float(own[i]), 17) for i in range(17)]
    torch.testing.assert_close(ours, torch.cat(one_by_one))


def test_an_unknown_decoder_is_refused_with_a_hint():
    with pytest.raises(DdpmkitError, match="unknown decoder 'cdf-tan'; did you mean 'cdf-tanh'"):
        decoder_terms("cdf-tan", grey(2), grey(2), 0.0, 2)


def test_middle_terms_are_the_kl_of_torch_pixel_by_pixel():
    tables = tables_for(Cosine(), 40)
    g = torch.Generator().manual_seed(2)
    t = torch.tensor([1, 7, 39])
    x0, hat, own = (torch.randn(3, 1, 2, 2, generator=g).double() for _ in range(3))
    around = (3, 1, 1, 1)
    c, variance = (torch.from_numpy(v)[t].reshape(around) for v in (tables.posterior_x0, tables.posterior_variance))
    q, p = torch.distributions.Normal(c * x0, variance.sqrt()), torch.distributions.Normal(c * hat, (own / 2).exp())
    expected = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(middle_terms(tables, t, x0, hat, own), expected, rtol=1e-9, atol=0)
