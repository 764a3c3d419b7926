"""The two layers of the likelihood: what is drawn against loops written out here, what is made of it against truth."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.sigmas.beta import Beta
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde
from ddpmkit.builtin.sigmas.interpolate import Interpolate
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import DdpmkitError, Diverged
from ddpmkit.likelihood import Draws, LinearGaussian, bound, draw, paired
from ddpmkit.likelihood.control_variates import Controls, coefficients
from ddpmkit.likelihood.proposal import pilot_grid, systematic

torch.set_num_threads(1)
K, DIMS, COUNT, T = 17, 9, 40, 60


class World:
    """Correlated images on 17 levels, and a denoiser that is one matrix a step: right for Gaussian data, or wrong."""

    def __init__(self, schedule=None, steps=T, wrong=1.0):
        rng = np.random.default_rng(3)
        self.tables = tables_for(schedule or Linear(), steps)
        mix = rng.normal(size=(DIMS, DIMS)) / 4

        def draws(n):
            return np.clip(np.round((rng.normal(size=(n, DIMS)) @ mix + 1) * 8), 0, 16) / 8 - 1

        self.train, self.x0, self.held = draws(400), draws(COUNT), draws(50)
        covariance = np.cov(self.train.T)
        m, s2 = self.tables.signal[:, None, None], self.tables.noise2[:, None, None]
        self.mean = self.train.mean(0)
        self.gain = wrong * m * covariance @ np.linalg.inv(m**2 * covariance + s2 * np.eye(DIMS))
        self.images, self.pilot = (torch.from_numpy(v).float().reshape(-1, 1, 3, 3) for v in (self.x0, self.held))
        self.linear = LinearGaussian.fit(torch.from_numpy(self.train))
        self.calls = 0

    def x0_hat(self, xt, t):
        centred = xt.double().flatten(1).numpy() - self.tables.signal[t][:, None] * self.mean
        hat = self.mean + np.einsum("bij,bj->bi", self.gain[t], centred)
        return torch.from_numpy(hat).float().reshape(xt.shape)

    def predict(self, xt, t):
        self.calls += len(xt)
        return self.x0_hat(xt, t.numpy()), None

    def draw(self, predict=None, **options):
        options = {"linear": self.linear, "micro_batch": 200, "levels": K, **options}
        if not options.keys() & {"evaluations", "target_se", "full"}:
            options["evaluations"] = 4000
        return draw(predict or self.predict, self.tables, images=self.images, pilot=self.pilot, **options)

    def sigma(self, sigma):
        return fixed_log_variance(sigma, self.tables)

    def bound(self, draws, sigma=None, **options):
        decoder = decoder_log_variance(self.tables)
        return bound(draws, self.tables, self.sigma(sigma or Beta()), decoder, levels=K, **options)

    def middle_truth(self, sigma):
        """The unclipped middle sum of each image, bits/dim: the matrices' own first and second moments."""
        log_sigma2, out = self.sigma(sigma), np.zeros(COUNT)
        for t in range(1, self.tables.T):
            m, s2 = self.tables.signal[t], self.tables.noise2[t]
            a2 = (m / self.tables.signal[t - 1]) ** 2
            step, before = s2 - a2 * self.tables.noise2[t - 1], self.tables.noise2[t - 1]
            tilde, pull = step * before / s2, self.tables.signal[t - 1] * step / s2
            bias = (self.x0 - self.mean) @ (np.eye(DIMS) - m * self.gain[t]).T
            error = (bias**2).sum(1) + s2 * (self.gain[t] ** 2).sum()
            ratio = tilde / math.exp(log_sigma2[t])
            out += 0.5 * (DIMS * (ratio - 1 - math.log(ratio)) + pull**2 * error / math.exp(log_sigma2[t]))
        return out / (DIMS * math.log(2))


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def draws(world):
    return world.draw()


@pytest.fixture(scope="module")
def recorded():
    """Draws, and every call of the network that they were made of: x_t, t and x0hat."""
    world, calls = World(), []

    def spy(xt, t):
        hat = world.x0_hat(xt, t.numpy())
        calls.append((xt.double().flatten(1).numpy(), t.numpy(), hat.double().flatten(1).numpy()))
        return hat, None

    found = world.draw(spy, evaluations=1000, micro_batch=1)
    return world, found, tuple(np.concatenate([c[k] for c in calls]) for k in range(3))


@pytest.mark.long
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("sigma", [Beta(), Interpolate()], ids=lambda s: s.name)
def test_the_bound_of_draws_is_what_evaluating_each_of_them_gives(recorded, sigma, clip):
    """Each term is taken from torch's KL of two Gaussians and scipy's CDF."""
    world, found, (xt, t, hat) = recorded
    got = world.bound(found, sigma, clip=clip, control=False)
    assert found.evaluations == len(t)
    hat = hat.clip(-1, 1) if clip else hat
    first, last = len(found.middle.pilot_t), len(t) - len(found.middle.t)
    np.testing.assert_array_equal(t[last:], found.middle.t)
    x0, log_sigma2, total = world.x0[found.middle.image], world.sigma(sigma), 0.0
    for i, step in enumerate(t[last:]):
        a2 = (world.tables.signal[step] / world.tables.signal[step - 1]) ** 2
        before = world.tables.noise2[step - 1]
        added = world.tables.noise2[step] - a2 * before
        precision = 1 / before + a2 / added

        def posterior(x, step=step, i=i, a2=a2, before=before, added=added, precision=precision):
            pulled = world.tables.signal[step - 1] * x / before + math.sqrt(a2) * xt[last + i] / added
            return torch.from_numpy(pulled / precision)

        q = torch.distributions.Normal(posterior(x0[i]), precision**-0.5)
        p = torch.distributions.Normal(posterior(hat[last + i]), math.exp(log_sigma2[step] / 2))
        total += float(torch.distributions.kl_divergence(q, p).sum()) / found.middle.proposal[step]
    unit = DIMS * math.log(2)
    assert got.terms.middle == pytest.approx(total / len(x0) / unit, rel=1e-5)

    centre, sd, half = np.tile(world.x0, (2, 1)), math.exp(decoder_log_variance(world.tables) / 2), 1 / (K - 1)
    assert (t[first:last] == 0).all()
    mean = hat[first:last]
    flip = np.sign(mean - centre)  # the far end of the bin on the left, where logcdf is exact
    far, near = (np.clip(-np.abs(mean - centre) + s * half, -9, 9) / sd for s in (-1, 1))
    open_end = np.abs(centre) == 1
    outside = open_end & (flip * centre > 0)
    mass = np.where(open_end, np.where(outside, stats.norm.sf(-near), stats.norm.cdf(near)), 0)
    mass = np.where(open_end, mass, stats.norm.cdf(near) - stats.norm.cdf(far))
    mass = np.where(outside, stats.norm.cdf((np.abs(mean - centre) + half) / sd), mass)
    safe = mass > 1e-9
    ours = got.evidence.decoder.mean() * unit
    per_pixel = np.where(safe, -np.log(np.where(safe, mass, 1)), np.nan)
    if safe.all():
        assert ours == pytest.approx(per_pixel.sum(1).mean(), rel=1e-6)
    else:
        assert ours >= np.nansum(per_pixel, 1).mean()
    last_bar = world.tables.alpha_bars[-1]
    prior = 0.5 * (last_bar * (world.x0**2).mean() - last_bar - math.log1p(-last_bar)) / math.log(2)
    assert got.terms.prior == pytest.approx(prior, rel=1e-5)
    assert got.rate == got.terms.prior + got.terms.middle
    assert got.distortion == got.terms.decoder
    assert got.total == pytest.approx(got.rate + got.distortion, rel=1e-14)
    assert got.rmse == pytest.approx(math.sqrt(((mean - centre) ** 2).mean()) * 8, rel=1e-5)


def test_one_set_of_draws_serves_every_sigma_without_the_network(world, draws):
    before = world.calls
    for sigma in (Beta(), BetaTilde(), Interpolate()):
        got = world.bound(draws, sigma, clip=False)
        truth = world.middle_truth(sigma).mean()
        error = math.sqrt(got.evidence.middle_variance())
        assert got.terms.middle == pytest.approx(truth, abs=4.5 * error)
        assert error < 0.04 * truth
    assert world.calls == before


@pytest.mark.slow
def test_the_full_sweep_is_exact_but_for_its_noise_and_says_how_much_that_is(world):
    misses, said = [], []
    for seed in range(24):
        got = world.bound(world.draw(full=True, seed=seed), BetaTilde(), clip=False)
        misses.append(got.terms.middle - world.middle_truth(BetaTilde()).mean())
        said.append(got.evidence.middle_variance())
    sd = math.sqrt(np.mean(said))
    assert abs(np.mean(misses)) < 4 * sd / math.sqrt(24)
    assert 0.65 < np.std(misses, ddof=1) / sd < 1.45


@pytest.mark.parametrize("clip", [True, False])
def test_importance_and_full_sweep_agree(clip):
    world = World(wrong=1.6)
    few, all_of_them = world.draw(evaluations=6000), world.draw(full=True, seed=5)
    assert all_of_them.evaluations == COUNT * (T - 1 + 2)
    for sigma in (Beta(), BetaTilde()):
        a, b = (world.bound(d, sigma, clip=clip) for d in (few, all_of_them))
        assert a.total == pytest.approx(b.total, abs=4 * math.hypot(a.standard_error, b.standard_error))


@pytest.mark.long
def test_what_a_full_sweep_keeps_does_not_grow_with_the_steps():
    def kept(steps):
        middle = World(steps=steps).draw(full=True, decoder_draws=1).middle
        return middle.clipped.image.size, sum(v.size for v in vars(middle.clipped).values())

    (blocks, whole), (more_blocks, more) = kept(200), kept(800)
    assert more_blocks < 1.5 * blocks
    assert more < whole + 3 * 600 + 40 * COUNT  # three sums a step, and not one number an image and step


@pytest.mark.long
@pytest.mark.parametrize("how", [{"evaluations": 40_000}, {"full": True}], ids=["drawn", "full"])
def test_the_error_of_the_test_set_is_the_spread_of_its_images_and_not_of_the_noise(how):
    world = World(wrong=0.4)  # so that images far from the mean cost more
    got = world.bound(world.draw(**how), Beta(), decoder="continuous", clip=False)
    # all that the images differ in, by the closed form: middle, prior, and the decoder's density
    m, s2 = world.tables.signal[0], world.tables.noise2[0]
    bias = (world.x0 - world.mean) @ (np.eye(DIMS) - m * world.gain[0]).T
    error = (bias**2).sum(1) + s2 * (world.gain[0] ** 2).sum()
    nats = error / (2 * math.exp(decoder_log_variance(world.tables)))
    nats = nats + world.tables.alpha_bars[-1] / 2 * (world.x0**2).sum(1)
    own = world.middle_truth(Beta()) + nats / (DIMS * math.log(2))
    expected = own.std(ddof=1) / math.sqrt(COUNT)
    assert got.test_set_error == pytest.approx(expected, rel=0.15)
    assert got.standard_error < expected / 2


def test_an_error_of_the_test_set_that_the_draws_do_not_show_is_none_and_not_zero():
    """Of equal images the estimate of the variance is as often below zero as above it."""
    world = World(wrong=0.4)
    world.images = world.images[:1].expand(40, -1, -1, -1).contiguous()
    found = []
    for seed in range(12):
        drawn = world.draw(evaluations=1500, seed=seed)
        found.append(world.bound(drawn, decoder="continuous", clip=False).test_set_error)
    assert 2 <= sum(map(math.isnan, found)) <= 10
    assert 0.0 not in found


def test_the_curve_sums_to_the_bound_less_its_prior_and_follows_the_truth(world, draws):
    for found in (draws, world.draw(full=True)):
        got = world.bound(found, BetaTilde(), clip=False)
        steps = got.curve.last - got.curve.first + 1
        assert got.curve.first[0] == got.curve.last[0] == 1
        assert got.curve.last[-1] == T
        np.testing.assert_array_equal(got.curve.first[1:], got.curve.last[:-1] + 1)
        # A block that no draw fell into has no number, and added nothing.
        assert np.nansum(got.curve.bits * steps) == pytest.approx(got.terms.middle + got.terms.decoder, rel=1e-9)
        assert got.curve.bits[0] == pytest.approx(got.terms.decoder)
        # t=2 by itself: the first and dearest of the middle steps
        factor = world.tables.posterior_x0[1] ** 2 / (2 * world.tables.posterior_variance[1])
        bias = (world.x0 - world.mean) @ (np.eye(DIMS) - world.tables.signal[1] * world.gain[1]).T
        error = (bias**2).sum(1).mean() + world.tables.noise2[1] * (world.gain[1] ** 2).sum()
        expected = factor * error / (DIMS * math.log(2))
        assert (got.curve.first[1], got.curve.last[1]) == (2, 2)
        assert got.curve.bits[1] == pytest.approx(expected, abs=4.5 * got.curve.standard_error[1])
        assert 0 < got.curve.standard_error[1] < 0.1 * expected


# --- learned variances -----------------------------------------------------------------------------------------------


def test_a_network_with_variances_of_its_own_that_are_beta_gives_the_bound_of_beta():
    world = World()
    log_beta = torch.from_numpy(world.sigma(Beta()))

    def predict(xt, t):
        return world.x0_hat(xt, t.numpy()), log_beta[t].reshape(-1, 1, 1, 1).expand(xt.shape)

    for how in ({"evaluations": 3000}, {"full": True}):
        found = world.draw(predict, **how)
        decoder = float(log_beta[0])
        for clip in (True, False):
            own = bound(found, world.tables, levels=K, clip=clip, control=False)
            fixed = bound(found, world.tables, log_beta.numpy(), decoder, levels=K, clip=clip, control=False)
            assert own.total == pytest.approx(fixed.total, rel=1e-6)
            assert own.terms.decoder == pytest.approx(fixed.terms.decoder, rel=1e-6, abs=1e-12)
            if "full" not in how:
                assert own.standard_error == pytest.approx(fixed.standard_error, rel=1e-4)


@pytest.mark.long
def test_a_variance_that_differs_from_pixel_to_pixel_enters_each_pixels_kl():
    world, calls = World(), []

    def predict(xt, t):
        hat = world.x0_hat(xt, t.numpy())
        low, high = (torch.from_numpy(world.sigma(s))[t].reshape(-1, 1, 1, 1) for s in (BetaTilde(), Beta()))
        own = low + (high - low) * torch.sigmoid(3 * xt)
        calls.append((t.numpy(), hat.double().flatten(1).numpy(), own.flatten(1).numpy()))
        return hat, own

    found = world.draw(predict, evaluations=1000, micro_batch=1)
    t, hat, own = (np.concatenate([c[k] for c in calls])[-len(found.middle.t) :] for k in range(3))
    x0, c = world.x0[found.middle.image], world.tables.posterior_x0[t][:, None]
    q = torch.distributions.Normal(
        torch.from_numpy(c * x0), torch.from_numpy(world.tables.posterior_variance[t] ** 0.5)[:, None]
    )
    p = torch.distributions.Normal(torch.from_numpy(c * hat), torch.from_numpy(np.exp(own / 2)))
    kl = torch.distributions.kl_divergence(q, p).sum(1).numpy()
    np.testing.assert_allclose(found.middle.terms.unclipped, kl, rtol=1e-5, atol=1e-7)
    got = bound(found, world.tables, levels=K, clip=False, control=False)
    assert got.terms.middle == pytest.approx((kl / found.middle.proposal[t]).mean() / (DIMS * math.log(2)), rel=1e-6)
    # with its control variates it lands at the same place, and the decoder has the variance of the network
    assert bound(found, world.tables, levels=K, clip=False).total == pytest.approx(
        got.total, abs=5 * got.standard_error
    )
    assert found.decoder_log_variance.shape == found.decoder_mean.shape
    assert found.decoder_log_variance.std() > 0


def test_a_variance_that_is_not_finite_is_named(world):
    def predict(xt, t):
        own = torch.zeros_like(xt)
        own[t == 7] = torch.nan
        return world.x0_hat(xt, t.numpy()), own

    with pytest.raises(Diverged, match=r"log sigma\^2 is not finite at step 7 of image \d+"):
        world.draw(predict)


def test_fixed_variances_are_asked_for_where_the_network_has_none(world, draws):
    with pytest.raises(DdpmkitError, match="no variances of its own"):
        bound(draws, world.tables, levels=K)


# --- control variates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=str)
def test_the_controls_have_mean_zero(schedule):
    world = World(schedule)
    controls = Controls.of(world.tables, world.images, world.linear)
    g = torch.Generator().manual_seed(0)
    for t in (1, 20, T - 1):
        image, n = torch.arange(COUNT).repeat(2000), COUNT * 2000
        values = controls(image, torch.full((n,), t), torch.randn(n, 1, 3, 3, generator=g))
        assert (np.abs(values.mean(0)) < 4.5 * values.std(0) / math.sqrt(n) + 1e-12).all()
        # what tells images apart is no noise at all, and sums to zero over them
        assert np.ptp(values[::COUNT, 2]) < 1e-12
        assert abs(values[:COUNT, 2].sum()) < 1e-10


def test_the_linear_control_takes_the_noise_out_of_a_linear_network(world):
    """What is left is the grid of the steps alone."""
    found = [world.draw(evaluations=2000, seed=s) for s in range(6)]
    plain, better = (
        np.mean([world.bound(d, Beta(), clip=False, control=c).evidence.middle_variance() for d in found])
        for c in (False, True)
    )
    assert better < plain / 5


@pytest.mark.slow
@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("sigma", [Beta(), BetaTilde()], ids=lambda s: s.name)
def test_with_controls_the_estimate_stays_where_it_was_and_its_error_honest(sigma, linear):
    world = World(wrong=1.3)
    truth = world.middle_truth(sigma).mean()
    found = [
        world.bound(world.draw(evaluations=1200, seed=s, linear=world.linear if linear else None), sigma, clip=False)
        for s in range(60)
    ]
    misses = np.array([b.terms.middle - truth for b in found])
    errors = np.sqrt([b.evidence.middle_variance() for b in found])
    said = math.sqrt(np.mean(errors**2))
    assert abs(misses.mean()) < 4 * said / math.sqrt(60)
    assert 0.7 < misses.std(ddof=1) / said < 1.35
    assert np.mean(np.abs(misses) < stats.t.ppf(0.975, 15) * errors) >= 0.85


def test_factors_are_found_by_least_squares_and_carried_between_the_pilots_steps():
    rng = np.random.default_rng(0)
    t, every = np.repeat([1, 3, 10, 30, 99], 400), np.arange(100)
    # the first control falls by orders where no pilot looks, and the factor on it rises in turn
    first = np.where(every > 50, 1e-3, 1.0) * np.maximum(every, 1) ** 0.5
    scales = np.stack([first, 5.0 * np.maximum(every, 1) ** 0.5], 1)
    unit = rng.normal(size=(len(t), 2))
    values = t * (7.0 + 2.0 * unit[:, 0] - 0.3 * unit[:, 1] + 0.01 * rng.normal(size=len(t)))
    found = coefficients(t, values, unit * scales[t], scales, window=0, ridge=0.0)
    expected = every[1:, None] * np.array([2.0, -0.3]) / scales[1:]
    np.testing.assert_allclose(found[1:], expected, rtol=0.1)
    np.testing.assert_allclose(found[[1, 3, 10, 30, 99]], expected[[0, 2, 9, 29, 98]], rtol=0.02)


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=str)
def test_the_size_of_a_control_is_known_at_every_step(schedule):
    """Steps that no pilot sees: at the end of the cosine schedule the controls fall by orders from one to the next."""
    world = World(schedule)
    root = np.linalg.cholesky(np.cov(world.train.T))
    rng, n = np.random.default_rng(1), 20_000
    gaussian = torch.from_numpy(world.mean + rng.normal(size=(n, DIMS)) @ root.T).float()
    controls, scales = Controls.of(world.tables, gaussian, world.linear), world.linear.scales(world.tables)
    eps = torch.from_numpy(rng.normal(size=(n, DIMS))).float()
    for t in (1, 10, 40, T - 2, T - 1):
        sd = controls(torch.arange(n), torch.full((n,), t), eps).std(0)
        np.testing.assert_allclose(sd, scales[t], rtol=0.08)


def test_controls_do_no_harm_where_a_chain_ends_abruptly():
    """Clipped betas make the last steps of a cosine chain unlike the ones before; this network fails there besides."""
    world = World(Cosine(), steps=1000)
    world.gain[-3:] *= 1e4
    plain, better = [], []
    for seed in range(5):
        found = world.draw(seed=seed)
        for control, variances in ((False, plain), (True, better)):
            variances.append(world.bound(found, BetaTilde(), control=control).evidence.middle_variance())
    assert np.mean(better) < np.mean(plain)


def test_every_image_is_drawn_equally_often_and_apart_from_the_step():
    p = np.concatenate([[0.0], np.ones(50) / 50])
    t, image = (v.reshape(16, -1).numpy() for v in systematic(p, 30, 100, 0, "x"))
    assert all(np.bincount(row, minlength=30).max() <= 4 for row in image)
    assert all(np.bincount(row, minlength=30).min() >= 3 for row in image)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(t, image, strict=True)]
    assert np.abs(np.mean(correlation)) < 0.1
    late = t > 40  # the cut lap must not stick to the late steps
    assert len(np.unique(image[late])) == 30


@pytest.mark.parametrize("steps", [2, 3, 10, 100, 1000, 4000])
def test_the_pilot_looks_at_both_ends(steps):
    grid = pilot_grid(steps)
    assert (grid[0], grid[-1]) == (1, steps - 1)
    assert (np.diff(grid) > 0).all()
    assert len(grid) <= 32
    if steps >= 1000:
        assert {1, 2, 3} <= set(grid.tolist())
        assert (grid >= steps - steps // 50).sum() >= 4
        assert np.diff(grid).max() < 0.3 * steps


# --- budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_target_error_is_reached_by_more_evaluations_and_not_by_luck():
    world = World(Linear(), wrong=1.3)
    found = {}
    for target in (0.12, 0.06):
        draws = [world.draw(target_se=target, seed=s) for s in range(14)]
        totals = [
            max((world.bound(d, s) for s in (Beta(), BetaTilde())), key=lambda b: b.standard_error) for d in draws
        ]
        reached = math.sqrt(np.mean([b.standard_error**2 for b in totals]))
        assert reached < target
        tilde = [world.bound(d, BetaTilde()).total for d in draws]
        assert np.std(tilde, ddof=1) < 1.4 * target
        found[target] = np.mean([d.evaluations for d in draws])
    assert found[0.06] > 1.3 * found[0.12]


def test_a_target_error_beyond_reason_is_refused_with_one_that_is_within_reach():
    with pytest.raises(DdpmkitError, match=r"a standard error of 1e-06 bits/dim takes about .* evaluations") as caught:
        World().draw(target_se=1e-6)
    assert "is within reach, as in --nll-se" in caught.value.hint


@pytest.mark.long
def test_the_first_stage_of_a_target_does_not_enter_the_estimate():
    """Only the second stage's draws are kept: their noise and shifts are those of another stream."""
    world = World()
    rows = []

    def spy(xt, t):
        rows.extend(t.tolist())
        return world.predict(xt, t)

    found = world.draw(spy, target_se=0.3, micro_batch=1)
    assert found.evaluations == len(rows)
    kept = len(found.middle.pilot_t) + found.decoder_mean.shape[0] * COUNT + len(found.middle.t)
    assert found.evaluations - kept == 16 * 64 + 2 * COUNT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluations": 2000, "full": True}, "give one of"),
        ({"evaluations": 100}, "fewer than the"),
        ({"target_se": 0.0}, "above 0"),
        ({"evaluations": 2000, "decoder_draws": 0}, "decoder_draws must be at least 1"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(world, options, message):
    with pytest.raises(DdpmkitError, match=message):
        world.draw(**options)


@pytest.mark.long
def test_the_budget_is_kept_and_counts_everything(world):
    for asked in (1000, 2000):
        before = world.calls
        found = world.draw(evaluations=asked, micro_batch=1)
        assert world.calls - before == found.evaluations
        assert asked <= found.evaluations < asked + 16


@pytest.mark.long
def test_with_one_draw_at_t_1_its_error_is_bounded_from_above(world):
    one, two = (
        [world.bound(world.draw(seed=s, decoder_draws=n), decoder="continuous") for s in range(20)] for n in (1, 2)
    )
    spread = np.std([b.terms.decoder for b in one], ddof=1)
    assert math.sqrt(np.mean([b.evidence.decoder_variance() for b in one])) > 0.7 * spread
    assert math.sqrt(np.mean([b.evidence.decoder_variance() for b in two])) < spread


# --- differences -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_two_sigmas_differ_more_surely_than_each_is_known(full):
    world = World(steps=200, wrong=0.6)
    truth = (world.middle_truth(Beta()) - world.middle_truth(BetaTilde())).mean()
    rows = []
    seeds = 16 if full else 40
    for seed in range(seeds):
        found = world.draw(full=True, seed=seed) if full else world.draw(evaluations=2500, seed=seed, linear=None)
        a, b = (world.bound(found, s, clip=False) for s in (Beta(), BetaTilde()))
        before = world.calls
        d = paired(a, b)
        assert world.calls == before
        assert d.total == pytest.approx(a.total - b.total, abs=1e-12)
        rows.append((d.total, d.standard_error, a.standard_error, b.standard_error, d.test_set_error))
    total, error, alone_a, alone_b, images = np.array(rows).T
    said = math.sqrt(np.mean(error**2))
    assert abs(total.mean() - truth) < 4 * said / math.sqrt(seeds)
    assert 0.55 < total.std(ddof=1) / said < 1.6
    assert said < 0.75 * math.sqrt(np.mean(alone_a**2 + alone_b**2))
    own = (world.middle_truth(Beta()) - world.middle_truth(BetaTilde())).std(ddof=1) / math.sqrt(COUNT)
    assert math.sqrt(np.mean(images**2)) == pytest.approx(own, rel=0.25)


@pytest.mark.slow
def test_two_networks_asked_with_one_seed_are_paired_by_their_draws():
    one, other = World(), World(wrong=0.97)
    truth = (other.middle_truth(Beta()) - one.middle_truth(Beta())).mean()
    rows = []
    for seed in range(30):
        first = one.draw(seed=seed, linear=None)
        second = other.draw(seed=seed, linear=None, proposal=first.middle.proposal)
        np.testing.assert_array_equal(first.middle.t, second.middle.t)
        a, b = (w.bound(d, Beta(), clip=False) for w, d in ((one, first), (other, second)))
        d = paired(b, a)
        rows.append((b.terms.middle - a.terms.middle, d.standard_error, math.hypot(a.standard_error, b.standard_error)))
    total, error, alone = np.array(rows).T
    assert abs(total.mean() - truth) < 4 * total.std(ddof=1) / math.sqrt(30)
    assert np.mean(error) < np.mean(alone) / 3


@pytest.mark.slow
def test_full_sweeps_of_two_networks_are_paired_by_image_and_their_noise_taken_as_independent():
    one, other = World(), World(wrong=0.9)
    rows = []
    for seed in range(12):
        a, b = (w.bound(w.draw(full=True, seed=seed), Beta(), clip=False) for w in (one, other))
        d = paired(b, a)
        assert d.total == pytest.approx(b.total - a.total, abs=1e-12)
        rows.append((d.total, d.standard_error, a.evidence.middle_variance() + b.evidence.middle_variance()))
    total, error, alone = np.array(rows).T
    assert (error >= np.sqrt(alone) * (1 - 1e-9)).all()
    assert total.std(ddof=1) < 1.3 * error.mean()  # too much rather than too little


def test_bounds_that_were_not_drawn_alike_have_no_paired_difference(world, draws):
    other = world.draw(seed=1)
    with pytest.raises(DdpmkitError, match="not drawn alike"):
        paired(world.bound(draws), world.bound(other))
    with pytest.raises(DdpmkitError, match="not drawn alike"):
        paired(world.bound(draws), world.bound(world.draw(full=True)))


# --- what is stored --------------------------------------------------------------------------------------------------


def test_stored_draws_give_the_same_bound(world, draws):
    arrays = draws.arrays()
    again = Draws.from_arrays(arrays, world.images.numpy())
    for clip in (True, False):
        a, b = (world.bound(d, BetaTilde(), clip=clip) for d in (draws, again))
        assert (a.total, a.standard_error, a.test_set_error) == (b.total, b.standard_error, b.test_set_error)


def test_a_stored_sweep_gives_the_same_bound(world):
    swept = world.draw(full=True)
    again = Draws.from_arrays(swept.arrays(), world.images.numpy())
    for clip in (True, False):
        a, b = (world.bound(d, BetaTilde(), clip=clip) for d in (swept, again))
        assert (a.total, a.standard_error, a.test_set_error) == (b.total, b.standard_error, b.test_set_error)
        assert np.array_equal(a.curve.bits, b.curve.bits)


def test_draws_of_another_chain_are_refused(draws):
    with pytest.raises(DdpmkitError, match="chain of 60 steps"):
        World(steps=61).bound(draws)
