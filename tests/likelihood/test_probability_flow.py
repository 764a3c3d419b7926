"""The likelihood of the probability-flow ODE, where the flow and the density are known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ddpmkit.builtin.predictions.eps import Eps
from ddpmkit.builtin.predictions.mu import Mu
from ddpmkit.builtin.predictions.v import V
from ddpmkit.builtin.predictions.x0 import X0
from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.jsd import Jsd
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.schedules.random_walk import RandomWalk
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.errors import DdpmkitError, Diverged
from ddpmkit.likelihood.probability_flow import Continuum, from_network, ode_likelihood

torch.set_num_threads(1)
RNG = np.random.default_rng(0)


class Gaussian:
    """N(0, C) data with their exact denoiser at any time: C (C + sigma^2)^{-1} x / m."""

    def __init__(self, covariance, schedule=None, T=1000):
        self.tables = tables_for(schedule or Linear(), T)
        self.between = Continuum.of(self.tables)
        self.covariance = np.asarray(covariance, dtype=np.float64)
        self.d = len(self.covariance)
        root = np.linalg.cholesky(self.covariance)
        self.x0 = torch.from_numpy(RNG.normal(size=(12, self.d)) @ root.T)

    def sigma(self, t):
        return math.exp(float(self.between.log_sigma(t)))

    def predict(self, xt, t):
        m, s2 = math.exp(float(self.between.log_signal(t[0]))), self.sigma(t[0]) ** 2
        gain = self.covariance @ np.linalg.inv(self.covariance + s2 * np.eye(self.d))
        return xt.double() @ torch.from_numpy(gain.T) / m

    def truth(self):
        """The flow is z_T = sqrt(C + sigma_T^2) sqrt(C + sigma_1^2)^{-1} z; bits/dim of each image."""
        values, vectors = np.linalg.eigh(self.covariance)
        first, last = self.sigma(0) ** 2, self.sigma(self.between.last) ** 2
        stretch = np.sqrt((values + last) / (values + first))
        m = math.exp(float(self.between.log_signal(self.between.last)))
        end = m * (self.x0.numpy() @ vectors) * stretch
        variance = self.tables.prior_variance
        log_p = stats.norm.logpdf(end, scale=math.sqrt(variance)).sum(1) + np.log(m * stretch).sum()
        return -log_p / (self.d * math.log(2))


def covariance(d):
    a = RNG.normal(size=(d, d)) / math.sqrt(d)
    return a @ a.T + 0.05 * np.eye(d)


@pytest.mark.long
@pytest.mark.parametrize("sd", [1.0, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), RandomWalk()], ids=str)
def test_a_gaussian_costs_what_its_flow_says(schedule, sd):
    world = Gaussian(sd**2 * np.eye(3), schedule)
    got = ode_likelihood(world.predict, world.tables, world.x0, levels=None, steps=50)
    np.testing.assert_allclose(got.images, world.truth(), atol=4e-4)
    assert got.step_error < 4e-3
    assert got.total == pytest.approx(got.images.mean())
    if sd == 1 and not isinstance(schedule, RandomWalk):  # the chain's end is the prior, so it is the density itself
        smooth = math.sqrt(1 + world.sigma(0) ** 2)
        density = stats.norm.logpdf(world.x0.numpy(), scale=smooth).mean(1) / math.log(2)
        np.testing.assert_allclose(got.images, -density, atol=3e-4)


@pytest.mark.long
def test_a_full_covariance_needs_the_whole_trace():
    world = Gaussian(covariance(6))
    got = ode_likelihood(world.predict, world.tables, world.x0, levels=None, steps=40)
    np.testing.assert_allclose(got.images, world.truth(), atol=2e-4)
    assert got.evaluations == (40 + 80) * 4 * 12 * 7
    assert got.test_set_error == pytest.approx(got.images.std(ddof=1) / math.sqrt(12))


@pytest.mark.long
def test_a_mixture_of_gaussians_costs_its_log_sum_exp():
    """Nothing here is linear: two clusters apart, and the exact posterior mean as the denoiser."""
    tables = tables_for(Cosine(), 1000)  # it ends at the prior to five digits
    between = Continuum.of(tables)
    centres, variance = torch.tensor([[-0.6, -0.4], [0.5, 0.7]]).double(), 0.04

    def predict(xt, t):
        m, s2 = math.exp(float(between.log_signal(t[0]))), math.exp(2 * float(between.log_sigma(t[0])))
        z = xt.double() / m
        gap = z[:, None] - centres
        r = torch.softmax(-gap.square().sum(2) / (2 * (variance + s2)), 1)
        return (r[:, :, None] * (centres + variance / (variance + s2) * gap)).sum(1)

    x0 = torch.from_numpy(RNG.uniform(-1, 1, (40, 2)))
    got = ode_likelihood(predict, tables, x0, levels=None, steps=80)
    smooth = math.sqrt(variance + math.exp(2 * between.ends()[0]))
    parts = stats.norm.logpdf(x0.numpy()[:, None], centres.numpy(), smooth).sum(2)
    expected = -(np.logaddexp(*parts.T) - math.log(2)) / (2 * math.log(2))
    np.testing.assert_allclose(got.images, expected, atol=1e-3)


@pytest.mark.long
def test_the_error_falls_with_the_fourth_power_of_the_step_and_doubling_sees_it():
    world = Gaussian(0.01 * np.eye(2))
    misses = {}
    for steps in (6, 12, 24):
        got = ode_likelihood(world.predict, world.tables, world.x0, levels=None, steps=steps)
        misses[steps] = np.abs(got.images - world.truth()).mean()
        assert got.step_error > misses[steps]  # the coarse grid's error, of which little is left on the fine one
    assert 8 < misses[6] / misses[12] < 32
    assert 8 < misses[12] / misses[24] < 32


@pytest.mark.slow
def test_hutchinson_is_right_in_the_mean_and_exact_where_dimensions_do_not_mix():
    alone = Gaussian(np.diag([1.0, 0.3, 0.1]))
    got = ode_likelihood(alone.predict, alone.tables, alone.x0, levels=None, steps=30, divergence="hutchinson")
    np.testing.assert_allclose(got.images, alone.truth(), atol=1e-3)
    mixed = Gaussian(covariance(4))
    found = [
        ode_likelihood(mixed.predict, mixed.tables, mixed.x0, levels=None, steps=12, divergence="hutchinson", seed=s)
        for s in range(24)
    ]
    images = np.stack([f.images for f in found])
    error = images.std(0, ddof=1) / math.sqrt(24)
    assert (images.std(0) > 1e-3).any()
    assert (np.abs(images.mean(0) - mixed.truth()) < 5 * error + 1e-3).all()
    assert found[0].evaluations == (12 + 24) * 4 * 12 * 2


@pytest.mark.long
@pytest.mark.parametrize("levels", [17, 256])
def test_grey_levels_are_dequantised_and_offset(levels):
    """Levels spread widely over a broad Gaussian: -log2 of density times bin width is the discrete NLL."""
    world = Gaussian(0.25 * np.eye(2))
    k = RNG.integers(levels // 4, 3 * levels // 4, (400, 2))
    world.x0 = torch.from_numpy(-1 + 2 * k / (levels - 1))
    got = ode_likelihood(world.predict, world.tables, world.x0, levels=levels, steps=12, micro_batch=400)
    edges = (world.x0.numpy()[..., None] + np.array([-1, 1]) / (levels - 1)) / math.sqrt(0.25 + world.sigma(0) ** 2)
    mass = np.diff(stats.norm.cdf(edges), axis=-1)[..., 0]
    expected = -np.log2(mass).mean()
    assert got.total == pytest.approx(expected, abs=0.01)
    again, other = (
        ode_likelihood(world.predict, world.tables, world.x0[:5], levels=levels, steps=4, seed=s) for s in (0, 1)
    )
    assert again.total != other.total
    if levels == 256:
        assert got.total - math.log2(127.5) < 2  # not the 7 or 8 bits of anyone else's convention


@pytest.mark.long
@pytest.mark.parametrize("prediction", [Eps(), X0(), V()], ids=str)
def test_a_network_is_asked_between_its_steps(prediction):
    world = Gaussian(0.3 * np.eye(4))
    times = set()

    def net(x, time):
        times.update(time.tolist())
        hat = world.predict(x, time.double())
        t = float(time[0])
        m = math.exp(float(world.between.log_signal(t)))
        s = m * world.sigma(t)
        eps = (x.double() - m * hat) / s
        return {X0(): hat, Eps(): eps, V(): m * eps - s * hat}[prediction].float()

    predict = from_network(net, world.tables, prediction)
    got = ode_likelihood(predict, world.tables, world.x0, levels=None, steps=50)
    np.testing.assert_allclose(got.images, world.truth(), atol=2e-3)
    assert any(t % 1 for t in times)
    assert min(times) == pytest.approx(0, abs=1e-3)
    assert max(times) == pytest.approx(999, abs=1e-3)


@pytest.mark.long
def test_a_chain_that_loses_all_its_signal_is_cut_before():
    world = Gaussian(np.eye(2), Jsd())
    assert world.tables.signal[-1] == 0
    assert world.between.last == 998
    got = ode_likelihood(world.predict, world.tables, world.x0, levels=None, steps=50)
    smooth = math.sqrt(1 + world.sigma(0) ** 2)
    density = -stats.norm.logpdf(world.x0.numpy(), scale=smooth).mean(1) / math.log(2)
    np.testing.assert_allclose(got.images, density, atol=2e-3)


def test_the_chain_is_interpolated_through_its_own_steps_and_rises():
    tables = tables_for(Cosine(), 100)
    between = Continuum.of(tables)
    own = np.log(tables.noise2) / 2 - np.log(tables.signal)
    np.testing.assert_allclose(between.log_sigma(np.arange(100)), own, rtol=1e-12)
    t = np.linspace(0, 99, 500)
    assert (np.diff(between.log_sigma(t)) > 0).all()
    np.testing.assert_allclose(between.index(between.log_sigma(t)), t, atol=1e-6)


def test_what_can_not_be_is_refused():
    world = Gaussian(np.eye(2))
    with pytest.raises(DdpmkitError, match="mu is not defined"):
        from_network(lambda x, t: x, world.tables, Mu())
    with pytest.raises(DdpmkitError, match="make no sense"):
        ode_likelihood(world.predict, world.tables, world.x0, levels=None, steps=0)
    with pytest.raises(DdpmkitError, match="predict gives shape"):
        ode_likelihood(lambda x, t: x[:, :1], world.tables, world.x0, levels=None)
    with pytest.raises(Diverged, match="flow of image 0"):
        ode_likelihood(lambda x, t: x * math.inf, world.tables, world.x0, levels=None, steps=2)
