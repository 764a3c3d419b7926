"""The built-in schedules against the values that OpenAI's, Ho's, diffusers' and the blog's code give."""

import math

import numpy as np
import pytest

from ddpmkit.builtin.schedules.constant import Constant
from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.cosine_gamma import CosineGamma
from ddpmkit.builtin.schedules.jsd import Jsd
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.schedules.one_minus_t import OneMinusT
from ddpmkit.builtin.schedules.quadratic import Quadratic
from ddpmkit.builtin.schedules.sigmoid import Sigmoid
from ddpmkit.builtin.schedules.sigmoid_gamma import SigmoidGamma
from ddpmkit.builtin.schedules.warmup import Warmup
from ddpmkit.builtin.schedules.zero_snr import ZeroSnr
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.errors import DdpmkitError

ALL = [Linear(), Cosine(), Quadratic(), Sigmoid()]
SCALED = [Linear(), Quadratic(), Sigmoid()]


def named(component):
    return component.name


def printed(text):
    """What a value printed as ``text`` can be: within half a unit of its last digit."""
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(exponent or 0) - decimals)
    return pytest.approx(float(text), rel=0, abs=0.51 * unit)


@pytest.mark.parametrize(
    ("schedule", "beta_1", "beta_T", "middle", "last", "log_snr"),
    [
        (Linear(), "1e-4", ".02", ".07859", "4.036e-5", "-10.118"),
        (Cosine(), "4.128e-5", ".999", ".4938", "2.429e-9", "-19.836"),
        (Quadratic(), "1e-4", ".02", ".3332", "7.334e-4", "-7.217"),
        (Sigmoid(), "1.492e-4", ".01995", ".3019", "3.968e-5", "-10.135"),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_golden_values_at_a_thousand_steps(schedule, beta_1, beta_T, middle, last, log_snr):
    betas, tables = schedule.betas(1000), tables_for(schedule, 1000)
    # 1e-4 and .02 are exact definitions, not rounded prints
    assert betas[0] == (pytest.approx(1e-4, rel=1e-12) if beta_1 == "1e-4" else printed(beta_1))
    assert betas[-1] == (pytest.approx(0.02, rel=1e-12) if beta_T == ".02" else printed(beta_T))
    assert tables.alpha_bars[499] == printed(middle)
    assert tables.alpha_bars[999] == printed(last)
    assert math.log(tables.snr[999]) == printed(log_snr)


@pytest.mark.parametrize(
    ("schedule", "beta_1", "beta_T", "middle", "last"),
    [
        # denoising-diffusion-pytorch's sigmoid, and Chen's
        (SigmoidGamma(tau=1.0, floor=0.0, max_beta=0.999), "3.003e-4", ".999", ".50", "3.003e-7"),
        (SigmoidGamma(), "2.389e-4", None, ".50", "1.000e-9"),
        (OneMinusT(), "1.000e-3", None, ".5000", "1.000e-9"),
        (Constant(), ".0200", ".0200", None, "1.683e-9"),
        (Warmup(), "1.000e-4", ".0200", None, "4.614e-9"),
        (Jsd(), "1.000e-3", "1.000", ".5000", "0.0"),
        (ZeroSnr(), "1.000e-4", "1.000", None, "0.0"),
    ],
    ids=str,
)
def test_golden_values_of_the_less_common_schedules(schedule, beta_1, beta_T, middle, last):
    betas, alpha_bars = schedule.betas(1000), tables_for(schedule, 1000).alpha_bars
    checks = ((betas[0], beta_1), (betas[-1], beta_T), (alpha_bars[499], middle), (alpha_bars[-1], last))
    for got, text in checks:
        assert text is None or got == (0 if text == "0.0" else printed(text))


def test_gamma_schedules_are_their_own_closed_forms():
    u = np.arange(1, 1001) / 1000

    def logistic(x):
        return 1 / (1 + np.exp(-x / 0.9))

    sigmoid = (logistic(3) - logistic(6 * u - 3)) / (logistic(3) - logistic(-3))
    np.testing.assert_allclose(tables_for(SigmoidGamma(), 1000).alpha_bars, np.maximum(sigmoid, 1e-9), rtol=1e-8)
    np.testing.assert_allclose(tables_for(OneMinusT(), 1000).alpha_bars, np.maximum(1 - u, 1e-9), rtol=1e-8)
    np.testing.assert_allclose(tables_for(Jsd(), 1000).alpha_bars[:-1], 1 - u[:-1], rtol=1e-9)
    cosine = np.cos(u * np.pi / 2) ** 2
    np.testing.assert_allclose(tables_for(CosineGamma(), 1000).alpha_bars, cosine, rtol=1e-6, atol=2e-9)


@pytest.mark.parametrize("base", ["linear", "cosine", "sigmoid", "quadratic"])
def test_zero_snr_moves_the_last_step_to_nothing_and_leaves_the_first(base):
    plain = {"linear": Linear(), "cosine": Cosine(), "sigmoid": Sigmoid(), "quadratic": Quadratic()}[base]
    root = np.sqrt(np.cumprod(1 - plain.betas(1000)))
    got = tables_for(ZeroSnr(base=plain), 1000)
    np.testing.assert_allclose(got.signal, (root - root[-1]) * root[0] / (root[0] - root[-1]), rtol=1e-7, atol=1e-12)
    assert got.signal[-1] == 0
    assert got.noise2[-1] == 1


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Linear(), (".9999", ".897018146", ".0785872429", "4.03582977e-5")),
        (Cosine(), (".999958716", ".972092737", ".49384359", "2.42876691e-9")),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_alpha_bar_along_the_chain(schedule, values):
    alpha_bars = tables_for(schedule, 1000).alpha_bars
    for index, value in zip((0, 99, 499, 999), values, strict=True):
        assert alpha_bars[index] == printed(value), index


@pytest.mark.parametrize(
    ("schedule", "T", "beta_1", "last"),
    [
        (Linear(), 4000, "2.5e-5", "4.25e-5"),
        (Linear(), 100, "1.0e-3", "2.04e-5"),
        (Cosine(), 4000, "9.87e-6", "1.518e-10"),
        (Cosine(), 100, "6.31e-4", None),
    ],
)
def test_golden_values_at_other_lengths(schedule, T, beta_1, last):
    assert schedule.betas(T)[0] == printed(beta_1)
    if last is not None:
        assert tables_for(schedule, T).alpha_bars[-1] == printed(last)


@pytest.mark.parametrize(("schedule", "above_1", "above_5"), [(Linear(), 259, 130), (Cosine(), 496, 261)])
def test_how_many_steps_have_more_signal_than_noise(schedule, above_1, above_5):
    snr = tables_for(schedule, 1000).snr
    assert ((snr > 1).sum(), (snr > 5).sum()) == (above_1, above_5)


def test_cosine_is_its_own_closed_form_wherever_it_is_not_clipped():
    u = (np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2
    tables = tables_for(Cosine(), 1000)
    np.testing.assert_allclose(tables.alpha_bars[:-1], np.cos(u[1:-1]) ** 2 / np.cos(u[0]) ** 2, rtol=1e-10)


def test_cosine_clips_exactly_one_beta_at_a_thousand_steps():
    assert (Cosine().betas(1000) == 0.999).sum() == 1
    assert (Cosine(max_beta=0.5).betas(1000) == 0.5).sum() > 1


@pytest.mark.parametrize("T", [2, 3, 5, 10])
def test_cosine_works_however_short_the_chain(T):
    betas = Cosine().betas(T)
    assert betas.shape == (T,)
    assert ((betas > 0) & (betas < 1)).all()


def test_sigmoid_is_symmetric_about_its_middle_and_quadratic_is_linear_in_the_root():
    sigmoid = Sigmoid().betas(1001)
    np.testing.assert_allclose(sigmoid + sigmoid[::-1], (1e-4 + 0.02) * 1000 / 1001, rtol=1e-12)
    # one step of the linspace from the middle: the slope of the sigmoid, 1/4, times the step 12/1000
    step = (sigmoid[501] - sigmoid[500]) / ((0.02 - 1e-4) * 1000 / 1001)
    assert step == pytest.approx(0.012 / 4, rel=1e-4)
    np.testing.assert_allclose(np.diff(np.sqrt(Quadratic().betas(1000)), 2), 0, atol=1e-15)


@pytest.mark.parametrize("schedule", SCALED, ids=named)
def test_the_end_of_the_chain_hardly_depends_on_its_length(schedule):
    """The scaling by 1000/T keeps the integral of beta; without it T=100 would leave a tenth of the exponent."""
    ends = [math.log(tables_for(schedule, T).alpha_bars[-1]) for T in (200, 1000, 4000)]
    assert np.ptp(ends) < 0.06 * abs(ends[1])


@pytest.mark.parametrize("schedule", ALL, ids=named)
@pytest.mark.parametrize("T", [100, 1000, 4000])
def test_betas_are_float64_rise_and_lie_between_0_and_1(schedule, T):
    betas = schedule.betas(T)
    assert betas.dtype == np.float64
    assert betas.shape == (T,)
    assert ((betas > 0) & (betas < 1)).all()
    assert (np.diff(betas) >= 0).all()


@pytest.mark.parametrize("schedule", SCALED, ids=named)
@pytest.mark.parametrize("T", [2, 10, 20])
def test_a_chain_too_short_for_scaled_endpoints_is_refused_and_the_smallest_length_named(schedule, T):
    with pytest.raises(DdpmkitError, match=rf"schedule '{schedule.name}' at T={T}: .*below 1") as caught:
        schedule.betas(T)
    assert "T >= 21" in caught.value.hint
    assert schedule.betas(21).max() < 1


@pytest.mark.parametrize("beta_T", [0.02, 0.029, 0.1, 0.5, 0.0201])
def test_the_smallest_length_that_is_named_works_and_one_less_does_not(beta_T):
    schedule = Linear(beta_T=beta_T)
    with pytest.raises(DdpmkitError) as caught:
        schedule.betas(2)
    smallest = int(caught.value.hint.split("T >= ")[1].split(",")[0])
    assert schedule.betas(smallest).max() < 1
    with pytest.raises(DdpmkitError):
        schedule.betas(smallest - 1)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Linear(beta_T=1.0), "beta_T"),
        (lambda: Linear(beta_1=0.0), "beta_1"),
        (lambda: Cosine(s=-0.1), "s"),
        (lambda: Cosine(max_beta=1.0), "max_beta"),
        (lambda: Sigmoid(span=0.0), "span"),
        (lambda: Quadratic(beta_1=math.nan), "beta_1"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(make, name):
    with pytest.raises(ValueError, match=rf": {name} must be"):
        make()
