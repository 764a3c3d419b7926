"""The float64 tables: golden values, independent recursions, Bayes' rule by brute force, strided chains."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.schedules.quadratic import Quadratic
from ddpmkit.builtin.schedules.sigmoid import Sigmoid
from ddpmkit.builtin.sigmas.beta import Beta
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde
from ddpmkit.builtin.weightings.max_snr import MaxSnr
from ddpmkit.builtin.weightings.min_snr import MinSnr
from ddpmkit.builtin.weightings.p2 import P2
from ddpmkit.builtin.weightings.simple import Simple
from ddpmkit.builtin.weightings.truncated_snr import TruncatedSnr
from ddpmkit.builtin.weightings.vlb import Vlb
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Schedule, Sigma

VP = [Linear(), Cosine(), Quadratic(), Sigmoid()]


@dataclass(frozen=True)
class Given(Schedule):
    """A schedule that gives whatever the test wants."""

    name = "given"

    def betas(self, T):
        return given["betas"](T)


given = {}


@pytest.fixture
def betas():
    """Set the betas of :class:`Given` for one test."""

    def put(function):
        given["betas"] = function
        return Given()

    yield put
    given.clear()


@dataclass(frozen=True)
class Walk(Schedule):
    """A chain off the variance-preserving family: a_t shrinks a little, the noise grows."""

    name = "walk"
    shrink: float = 1.0

    def steps(self, T):
        return np.full(T, self.shrink), np.linspace(0.01, 0.2, T)

    def prior_variance(self, T):
        return 1.0 + float(self.steps(T)[1].sum())


def named(component):
    return component.name


def printed(text):
    """What a value printed as ``text`` can be: within half a unit of its last digit."""
    mantissa, _, exponent = text.lower().partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return pytest.approx(float(text), rel=0, abs=0.51 * unit)


def eps_weight_sum(tables, sigma):
    """The sum over t >= 2 of the VLB's factor on the eps-error, through the weighting."""
    weights = Vlb().weights(tables, fixed_log_variance(sigma, tables)) / tables.snr
    return weights[1:].sum()


def warm_up(share):
    """Ho's warmup10 and warmup50: linear over a share of the chain, then flat."""

    def betas(T):
        out = np.full(T, 0.02)
        out[: int(T * share)] = np.linspace(1e-4, 0.02, int(T * share))
        return out

    return betas


@pytest.mark.parametrize(
    ("schedule", "T", "first", "middle", "last", "tilde_2", "sum_beta", "sum_tilde"),
    [
        (
            *(Linear(), 1000, "0.9999", "0.0785872428818", "4.03582976538e-05"),
            *("5.4531876613e-05", "9.360996983", "10.17049287"),
        ),
        (
            *(Linear(), 100, "0.999", "0.0741969967174", "2.03900897556e-05"),
            *("7.51193591159e-04", "8.578072639", "10.70197239"),
        ),
        (
            *(Cosine(), 1000, "0.999958715775", "0.493843590441", "2.42876690703e-09"),
            *("2.17894961457e-05", "512.1090326", "512.8216101"),
        ),
        # unscaled endpoints, written against the scaling by 1000/T
        (Linear(2e-5, 4e-3), 200, "0.9999", None, "0.132182754", "6.66711e-05", "4.989095", "6.478924"),
        (Linear(1e-5, 2e-3), 100, "0.9999", None, "0.363563248", "7.50686e-05", "4.159948", "6.292043"),
    ],
)
def test_golden_table(schedule, T, first, middle, last, tilde_2, sum_beta, sum_tilde):
    tables = tables_for(schedule, T)
    assert tables.alpha_bars[0] == printed(first)
    if middle is not None:
        assert tables.alpha_bars[T // 2 - 1] == printed(middle)
    assert tables.alpha_bars[-1] == printed(last)
    assert tables.posterior_variance[1] == printed(tilde_2)
    assert eps_weight_sum(tables, Beta()) == printed(sum_beta)
    assert eps_weight_sum(tables, BetaTilde()) == printed(sum_tilde)


@pytest.mark.parametrize(
    ("share", "last", "tilde_2", "sum_beta", "sum_tilde"),
    [
        (0.1, "4.61368668e-09", "7.50686e-05", "13.568955", "15.706880"),
        (0.5, "2.60613513e-07", "5.83158e-05", "11.841855", "12.856121"),
    ],
)
def test_golden_table_of_schedules_that_anyone_may_add(betas, share, last, tilde_2, sum_beta, sum_tilde):
    tables = tables_for(betas(warm_up(share)), 1000)
    assert tables.alpha_bars[-1] == printed(last)
    assert tables.posterior_variance[1] == printed(tilde_2)
    assert eps_weight_sum(tables, Beta()) == printed(sum_beta)
    assert eps_weight_sum(tables, BetaTilde()) == printed(sum_tilde)


@pytest.mark.parametrize(
    ("schedule", "sigma", "values"),
    [
        (Linear(), Beta(), (".272692", ".0682240", ".0099962", ".0055097", ".0102045")),
        (Linear(), BetaTilde(), (".599672", ".0789765", ".0101784", ".0055145", ".0102045")),
        (Cosine(), Beta(), (".263908", ".0623214", ".0093614", ".0031176", "499.5")),
        (Cosine(), BetaTilde(), (".558856", ".0711881", ".0095348", ".0031272", "499.5")),
    ],
    ids=["linear-beta", "linear-tilde", "cosine-beta", "cosine-tilde"],
)
def test_golden_vlb_weights_on_the_eps_error(schedule, sigma, values):
    tables = tables_for(schedule, 1000)
    weights = Vlb().weights(tables, fixed_log_variance(sigma, tables)) / tables.snr
    for index, value in zip((1, 10, 100, 500, 999), values, strict=True):
        assert weights[index] == printed(value), index


@pytest.mark.parametrize(
    ("weighting", "schedule", "values"),
    [
        (MinSnr(), Linear(), ("5.0005e-4", ".585709", "1.0000", "1.0000")),
        (MinSnr(), Cosine(), ("2.0643e-4", ".146279", "1.0000", "1.0000")),
        (P2(), Linear(), ("1.000e-4", ".104858", ".922203", ".99996")),
        (P2(), Cosine(), ("4.128e-5", ".028424", ".507715", "1.0000")),
    ],
    ids=str,
)
def test_golden_snr_weights_on_the_eps_error(weighting, schedule, values):
    tables = tables_for(schedule, 1000)
    weights = weighting.weights(tables, np.zeros(1000)) / tables.snr
    for index, value in zip((0, 100, 500, 999), values, strict=True):
        assert weights[index] == printed(value), index


@pytest.mark.parametrize(("weighting", "floor"), [(MaxSnr(), 5), (MaxSnr(k=2.0), 2), (TruncatedSnr(), 1)], ids=str)
def test_weights_on_the_x0_error_that_have_a_floor(weighting, floor):
    """A clamp the wrong way round lived for years in a popular code."""
    beta = Linear().betas(1000)
    alpha_bar = np.cumprod(1 - beta)
    weights = weighting.weights(tables_for(Linear(), 1000), np.zeros(1000))
    np.testing.assert_allclose(weights, np.maximum(alpha_bar / (1 - alpha_bar), floor), rtol=1e-9)


@pytest.mark.parametrize("schedule", VP, ids=named)
def test_vlb_weight_is_equation_12_and_for_beta_tilde_half_the_relative_drop_of_the_snr(schedule):
    tables = tables_for(schedule, 1000)
    beta = schedule.betas(1000)
    alpha_bar = np.cumprod(1 - beta)
    for sigma in (Beta(), BetaTilde()):
        log_sigma2 = fixed_log_variance(sigma, tables)
        eq12 = beta**2 / (2 * np.exp(log_sigma2) * (1 - beta) * (1 - alpha_bar))
        np.testing.assert_allclose(Vlb().weights(tables, log_sigma2) / tables.snr, eq12, rtol=1e-9)
    snr = alpha_bar / (1 - alpha_bar)
    tilde = (Vlb().weights(tables, fixed_log_variance(BetaTilde(), tables)) / tables.snr)[1:]
    np.testing.assert_allclose(tilde, 0.5 * (snr[:-1] / snr[1:] - 1), rtol=1e-9)


@pytest.mark.parametrize("schedule", [*VP, Walk(), Walk(0.9)], ids=named)
def test_vlb_weight_of_a_general_chain(schedule):
    """b^4 / (2 sigma^2 a^2 S^2) on the eps-error, whatever the chain."""
    tables = tables_for(schedule, 200)
    a, b2 = schedule.steps(200)
    noise2 = [b2[0]]
    for t in range(1, 200):
        noise2.append(a[t] ** 2 * noise2[-1] + b2[t])
    log_sigma2 = fixed_log_variance(Beta(), tables)
    expected = b2**2 / (2 * b2 * a**2 * np.asarray(noise2))
    np.testing.assert_allclose(Vlb().weights(tables, log_sigma2) / tables.snr, expected, rtol=1e-9)


def test_simple_weighs_every_eps_error_by_one():
    tables = tables_for(Cosine(), 1000)
    np.testing.assert_array_equal(Simple().weights(tables, np.zeros(1000)) / tables.snr, 1.0)


def test_sigma_at_the_first_step():
    """beta-tilde_1 is zero: beta-tilde_2 stands in for it, and beta keeps its own beta_1."""
    for schedule, log_tilde_2 in ((Linear(), "-9.81673"), (Cosine(), "-10.73408")):
        tables = tables_for(schedule, 1000)
        assert tables.posterior_variance[0] == 0
        assert fixed_log_variance(BetaTilde(), tables)[0] == printed(log_tilde_2)
        assert fixed_log_variance(BetaTilde(), tables)[1] == printed(log_tilde_2)
        assert decoder_log_variance(tables) == printed(log_tilde_2)
        assert decoder_log_variance(tables, "beta1") == pytest.approx(math.log(schedule.betas(1000)[0]), rel=1e-12)
        np.testing.assert_allclose(np.exp(fixed_log_variance(Beta(), tables)), schedule.betas(1000), rtol=1e-12)


@pytest.mark.parametrize("schedule", VP, ids=named)
def test_beta_tilde_is_below_beta_and_is_ho_equation_7(schedule):
    tables, beta = tables_for(schedule, 1000), schedule.betas(1000)
    alpha_bar = np.cumprod(1 - beta)
    expected = beta[1:] * (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:])
    np.testing.assert_allclose(tables.posterior_variance[1:], expected, rtol=1e-9)
    assert (tables.posterior_variance < beta).all()


@pytest.mark.parametrize("schedule", [*VP, Walk(), Walk(0.9)], ids=named)
def test_marginals_are_the_chain_multiplied_out(schedule):
    a, b2 = schedule.steps(300)
    tables = tables_for(schedule, 300)
    signal, noise2 = 1.0, 0.0
    for t in range(300):
        signal, noise2 = a[t] * signal, a[t] ** 2 * noise2 + b2[t]
        assert tables.signal[t] == pytest.approx(signal, rel=1e-9)
        assert tables.noise2[t] == pytest.approx(noise2, rel=1e-9)
    assert tables.variance_preserving == (not isinstance(schedule, Walk))


def test_noise_of_the_first_step_keeps_its_digits():
    """1 - alpha-bar by subtraction would keep four digits of a beta_1 of 1e-12."""
    tables = tables_for(Linear(beta_1=1e-12), 1000)
    assert tables.noise2[0] == pytest.approx(1e-12, rel=1e-13, abs=0)


def bayes(a, b2, signal, noise2, xt, x0):
    """Mean and variance of q(x_{t-1} | x_t, x_0) on a grid: likelihood times prior, normalised."""
    centre, width = signal * x0, math.sqrt(noise2)
    x = np.linspace(centre - 14 * width, centre + 14 * width, 60001)
    log_p = -((xt - a * x) ** 2) / (2 * b2) - (x - signal * x0) ** 2 / (2 * noise2)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = (p * x).sum()
    return mean, (p * (x - mean) ** 2).sum()


@pytest.mark.parametrize("times", [None, [0, 3, 4, 11, 29]], ids=["full", "strided"])
@pytest.mark.parametrize("schedule", [*VP, Walk(), Walk(0.9)], ids=named)
def test_posterior_is_bayes_rule(schedule, times):
    tables = tables_for(schedule, 30)
    tables = tables if times is None else tables.strided(times)
    for t in (1, 2, tables.T // 2, tables.T - 2):
        xt, x0 = 0.7, -0.4
        # the joint likelihood of x_t from x_{t-1} and of x_{t-1} from x_0, nothing that the tables say of posteriors
        a, b2 = tables.signal[t] / tables.signal[t - 1], None
        b2 = tables.noise2[t] - a**2 * tables.noise2[t - 1]
        mean, variance = bayes(a, b2, tables.signal[t - 1], tables.noise2[t - 1], xt, x0)
        assert tables.posterior_x0[t] * x0 + tables.posterior_xt[t] * xt == pytest.approx(mean, abs=1e-7)
        assert tables.posterior_variance[t] == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("schedule", [Linear(), Walk(0.9)], ids=named)
def test_posterior_of_the_first_step_is_x0_itself(schedule):
    tables = tables_for(schedule, 100)
    assert (tables.posterior_x0[0], tables.posterior_xt[0], tables.posterior_variance[0]) == (1, 0, 0)


@pytest.mark.parametrize("schedule", [*VP, Walk(), Walk(0.9)], ids=named)
@pytest.mark.parametrize("times", [[999], [0, 999], [0, 20, 41, 500, 979, 999], list(range(1, 1000, 7))])
def test_a_strided_chain_keeps_the_marginals_and_is_a_chain(schedule, times):
    full = tables_for(schedule, 1000)
    tables = full.strided(times)
    np.testing.assert_array_equal(tables.signal, full.signal[times])
    np.testing.assert_array_equal(tables.noise2, full.noise2[times])
    np.testing.assert_allclose(np.cumprod(tables.a), full.signal[times], rtol=1e-9)
    variance = 0.0
    for t in range(tables.T):
        variance = tables.a[t] ** 2 * variance + tables.b2[t]
        assert variance == pytest.approx(full.noise2[times[t]], rel=1e-9)
    # The network hears the full chain's time.
    np.testing.assert_allclose(tables.network_time, np.asarray(times) * 1.0)
    assert tables.prior_variance == full.prior_variance


def test_striding_twice_is_striding_once_and_striding_by_all_changes_nothing():
    full = tables_for(Linear(), 100)
    twice, once = full.strided(range(0, 100, 3)).strided([0, 5, 33]), full.strided([0, 15, 99])
    np.testing.assert_allclose(twice.b2, once.b2, rtol=1e-12)
    np.testing.assert_array_equal(twice.times, once.times)
    np.testing.assert_array_equal(twice.network_time, once.network_time)
    np.testing.assert_array_equal(full.strided(range(100)).b2, full.b2)


@pytest.mark.parametrize("times", [[], [-1, 5], [0, 100], [3, 3], [5, 4]], ids=str)
def test_striding_refuses_what_does_not_rise_within_the_chain(times):
    with pytest.raises(ValueError, match=r"rise within 0 \.\. 99"):
        tables_for(Linear(), 100).strided(times)


@pytest.mark.parametrize("T", [100, 1000, 4000])
def test_the_network_is_told_time_between_0_and_1000_whatever_the_length(T):
    time = tables_for(Cosine(), T).network_time
    assert time[0] == 0
    assert time[-1] == pytest.approx(1000 - 1000 / T)


def test_the_input_has_unit_variance_for_unit_data():
    np.testing.assert_array_equal(tables_for(Linear(), 100).input_scale, 1)
    for tables in (tables_for(Walk(), 100), tables_for(Walk(0.9), 100)):
        variance = tables.input_scale**2 * (tables.signal**2 * 1.0 + tables.noise2)
        np.testing.assert_allclose(variance, 1, rtol=1e-12)


@pytest.mark.parametrize("T", [-1, 0, 1])
def test_a_chain_needs_two_steps(T):
    with pytest.raises(DdpmkitError, match="T must be at least 2"):
        tables_for(Cosine(), T)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda T: np.full(T - 1, 0.1), "shape"),
        (lambda T: np.full((T, 1), 0.1), "shape"),
        (lambda T: np.linspace(0.1, np.nan, T), "not finite"),
        (lambda T: np.linspace(0.0, 0.5, T), "step 0 adds no noise"),
        (lambda T: np.linspace(0.3, -0.1, T), "adds no noise"),
        (lambda T: np.where(np.arange(T) == 4, 1.0, 0.1), "beta at step 4 is 1"),
        (lambda T: np.where(np.arange(T) == 4, 1.5, 0.1), "beta at step 4 is 1.5"),
    ],
    ids=["short", "two-dimensional", "nan", "zero", "negative", "one", "above-one"],
)
def test_a_schedule_that_breaks_the_rules_is_refused_by_name_and_reason(betas, function, message):
    with pytest.raises(DdpmkitError, match=message) as caught:
        tables_for(betas(function), 10)
    assert "schedule 'given' at T=10" in caught.value.message


@dataclass(frozen=True)
class Odd(Sigma):
    """A sigma that gives what training does not take."""

    name = "odd"
    what: str = "range"

    def log_bounds(self, tables):
        low = np.zeros(tables.T)
        return {
            "range": (low, low + 1),
            "shape": (low[1:], low[1:]),
            "infinite": (low - np.inf, low - np.inf),
        }[self.what]


@pytest.mark.parametrize(
    ("what", "message"), [("range", "neither learned nor fitted"), ("shape", "shapes"), ("infinite", "not finite")]
)
def test_a_sigma_that_is_no_fixed_finite_variance_is_refused(what, message):
    with pytest.raises(DdpmkitError, match=f"sigma 'odd'.*{message}"):
        fixed_log_variance(Odd(what), tables_for(Linear(), 50))


@pytest.mark.parametrize("sigma", [Beta(), BetaTilde()], ids=named)
def test_sigmas_serve_strided_chains_down_to_a_single_step(sigma):
    full = tables_for(Linear(), 1000)
    for times in ([999], [0, 999], [0, 500, 999]):
        tables = full.strided(times)
        variance = np.exp(fixed_log_variance(sigma, tables))
        assert variance.shape == (len(times),)
        assert ((variance > 0) & (variance < 1)).all()


def test_a_strided_chain_is_one_where_float64_has_lost_the_signal(betas):
    """alpha-bar = 0.1^t is nothing from t = 324 on, and the quotient of two such signals has no digits or is 0/0."""
    full = tables_for(betas(lambda T: np.full(T, 0.9)), 800)
    assert full.signal[700] == 0
    times = np.array([0, 100, 310, 600, 644, 645, 646, 648, 650, 700, 701, 799])
    strided = full.strided(times)
    a = 0.1 ** (np.diff(np.concatenate([[-1], times])) / 2)
    np.testing.assert_allclose(strided.a, a, rtol=1e-9)
    np.testing.assert_allclose(strided.b2, 1 - a**2, rtol=1e-9)
