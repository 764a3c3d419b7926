"""The likelihood estimator where the answer is known: grey-level images and a denoiser that is linear in each pixel.

Each term is then an integral over one normal variable a pixel, taken on a fine grid, in numpy alone.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from scipy import stats

from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.sigmas.beta import Beta
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde
from ddpmkit.diffusion.bound_terms import bound_by_every_step
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import Diverged, Interrupted
from ddpmkit.likelihood import vlb
from ddpmkit.likelihood.ask import DECODER_DRAWS, draw
from ddpmkit.likelihood.proposal import PILOT_IMAGES, pilot_grid

torch.set_num_threads(1)
K, DIMS, COUNT = 17, 4, 24
EPS = np.linspace(-9, 9, 3001)
DENSITY = np.exp(-(EPS**2) / 2) / math.sqrt(2 * math.pi) * (EPS[1] - EPS[0])


@dataclass(frozen=True)
class Told:
    """A bound's numbers, bits/dim."""

    total: float
    standard_error: float
    prior: float
    middle: float
    decoder: float

    @classmethod
    def of(cls, found):
        terms = found.terms
        return cls(found.total, found.standard_error, terms.prior, terms.middle, terms.decoder)


class Found:
    """Draws, and their bounds, clipped and as they are, each made when it is looked at."""

    def __init__(self, draws, bound):
        self.evaluations, self.draws, self._bound = draws.evaluations, draws.arrays(), bound

    @cached_property
    def clipped(self):
        return self._bound(True)

    @cached_property
    def unclipped(self):
        return self._bound(False)


def estimate(predict_x0, tables, log_sigma2, decoder, *, images, evaluations, levels, **options):
    """Draw, then bound; the evaluations are those of the middle sum."""
    fixed = len(pilot_grid(tables.T)) * PILOT_IMAGES + DECODER_DRAWS * len(images)
    draws = draw(
        lambda xt, t: (predict_x0(xt, t), None), tables, images=images, levels=levels,
        evaluations=fixed + evaluations, **options,
    )  # fmt: skip
    return Found(draws, lambda clip: Told.of(vlb.bound(draws, tables, log_sigma2, decoder, levels=levels, clip=clip)))


class World:
    """Images on 17 levels, a chain, and the linear denoiser of Gaussian data of the same variance."""

    def __init__(self, schedule, sigma, T, shrink=1.0):
        rng = np.random.default_rng(0)
        self.levels = rng.choice(K, (COUNT, DIMS), p=rng.dirichlet(np.ones(K)))
        self.x0 = -1 + 2 * self.levels / (K - 1)
        self.images = torch.from_numpy(self.x0).float().reshape(COUNT, 1, 2, 2)
        self.pilot = torch.from_numpy(-1 + 2 * rng.integers(0, K, (10, DIMS)) / (K - 1)).float().reshape(10, 1, 2, 2)
        self.tables = tables_for(schedule, T)
        self.log_sigma2 = fixed_log_variance(sigma, self.tables)
        self.decoder = decoder_log_variance(self.tables)
        beta = schedule.betas(T)
        self.ab = np.cumprod(1 - beta)
        before = np.concatenate([[1.0], self.ab[:-1]])
        self.tilde = beta * (1 - before) / (1 - self.ab)
        self.variance = beta if isinstance(sigma, Beta) else self.tilde
        self.pull = np.sqrt(before) * beta / (1 - self.ab)  # the posterior mean's factor on x0
        s2 = float(np.mean(self.x0**2))
        # shrink below 1 is a denoiser that is wrong, above 1 one that clipping helps
        self.gain = shrink * np.sqrt(self.ab) * s2 / (self.ab * s2 + 1 - self.ab)
        self.gain_32 = torch.from_numpy(self.gain).float()

    def predict(self, xt, t):
        return self.gain_32[t].reshape(-1, 1, 1, 1) * xt

    def hat(self, level, t, clip):
        """x0hat of a pixel at each value of EPS."""
        x = -1 + 2 * level / (K - 1)
        hat = self.gain[t] * (math.sqrt(self.ab[t]) * x + math.sqrt(1 - self.ab[t]) * EPS)
        return x, np.clip(hat, -1, 1) if clip else hat

    def truth(self, clip):
        """L_T, the middle sum and L_0 in bits/dim, exact but for the grid."""
        share = np.bincount(self.levels.ravel(), minlength=K) / self.levels.size
        squares = [
            sum(p * (DENSITY * np.square(np.subtract(*self.hat(k, t, clip)))).sum() for k, p in enumerate(share))
            for t in range(len(self.ab))
        ]
        t = np.arange(1, len(self.ab))
        ratio = self.tilde[t] / self.variance[t]
        middle = 0.5 * (ratio - 1 - np.log(ratio) + self.pull[t] ** 2 * np.asarray(squares)[t] / self.variance[t]).sum()
        sigma, half = math.sqrt(self.tilde[1]), 1 / (K - 1)
        decoder = 0.0
        for k, p in enumerate(share):
            x, hat = self.hat(k, 0, clip)
            if k == 0:
                log_mass = stats.norm.logcdf((x + half - hat) / sigma)
            elif k == K - 1:
                log_mass = stats.norm.logsf((x - half - hat) / sigma)
            else:  # from the side of the smaller tail, so that nothing cancels
                near, far = (stats.norm.logsf((np.abs(x - hat) + h) / sigma) for h in (-half, half))
                log_mass = near + np.log1p(-np.exp(far - near))
            decoder -= p * (DENSITY * log_mass).sum()
        last = self.ab[-1]
        prior = 0.5 * (last * np.mean(self.x0**2) - last - math.log1p(-last))
        return tuple(v / math.log(2) for v in (prior, middle, decoder))

    def estimate(self, seed=0, evaluations=1024, micro_batch=256, **options):
        return estimate(
            options.pop("predict", self.predict),
            self.tables,
            self.log_sigma2,
            self.decoder,
            images=options.pop("images", self.images),
            pilot=options.pop("pilot", self.pilot),
            levels=K,
            evaluations=evaluations,
            seed=seed,
            micro_batch=micro_batch,
            **options,
        )


WORLDS = {
    "linear-beta": (Linear(), Beta(), 50, 1.0),
    "linear-tilde": (Linear(), BetaTilde(), 50, 1.0),
    "cosine-beta": (Cosine(), Beta(), 50, 1.4),
    "short": (Cosine(), BetaTilde(), 5, 0.8),
}


@pytest.fixture(params=WORLDS, scope="module")
def world(request):
    return World(*WORLDS[request.param])


@pytest.fixture(scope="module")
def linear():
    return World(*WORLDS["linear-beta"])


@pytest.mark.long
def test_the_known_answer_is_what_a_full_sweep_over_all_steps_gives(linear):
    """The integrals of this file against plain Monte Carlo of them: every image, every step, many draws."""
    rng = np.random.default_rng(1)
    totals = []
    for _ in range(300):
        total = 0.0
        for t in range(1, 50):
            ab = linear.ab[t]
            xt = math.sqrt(ab) * linear.x0 + math.sqrt(1 - ab) * rng.normal(size=linear.x0.shape)
            error = np.square(linear.x0 - np.clip(linear.gain[t] * xt, -1, 1)).mean()
            ratio = linear.tilde[t] / linear.variance[t]
            total += 0.5 * (ratio - 1 - math.log(ratio) + linear.pull[t] ** 2 * error / linear.variance[t])
        totals.append(total / math.log(2))
    error = np.std(totals, ddof=1) / math.sqrt(len(totals))
    assert np.mean(totals) == pytest.approx(linear.truth(clip=True)[1], abs=4 * error)
    assert error < 0.01


@pytest.mark.long
@pytest.mark.parametrize("clip", [True, False])
def test_the_bound_by_every_step_hits_the_known_answer(world, clip):
    """The sum as the paper writes it is what these integrals, which know nothing of the package, say it is."""
    totals = [
        float(bound_by_every_step(
            lambda xt, t: (world.predict(xt, t), None), world.tables, world.images, world.log_sigma2, world.decoder,
            levels=K, clip=clip, seed=seed,
        ).mean()) / (DIMS * math.log(2))
        for seed in range(20)
    ]  # fmt: skip
    error = np.std(totals, ddof=1) / math.sqrt(len(totals))
    assert np.mean(totals) == pytest.approx(sum(world.truth(clip)), abs=4.5 * error)
    assert error < 0.02 * np.mean(totals)


def test_the_estimate_hits_the_known_answer_in_every_term(world):
    got = world.estimate(evaluations=20_000)
    for bound, clip in ((got.clipped, True), (got.unclipped, False)):
        prior, middle, decoder = world.truth(clip)
        assert bound.prior == pytest.approx(prior, rel=1e-6)
        assert bound.total == bound.prior + bound.middle + bound.decoder
        assert bound.middle == pytest.approx(middle, abs=4 * bound.standard_error)
        assert bound.decoder == pytest.approx(decoder, abs=4 * bound.standard_error)
        assert bound.total == pytest.approx(prior + middle + decoder, abs=4 * bound.standard_error)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "evaluations"),
    [("linear-beta", 384), ("cosine-beta", 384), ("linear-tilde", 160), ("short", 160)],
    ids=str,
)
def test_the_standard_error_is_honest(name, evaluations):
    """Over a hundred seeds the misses have mean zero, and are as large as they are said to be.

    With 160 evaluations a replicate sees ten of the 24 images, so that the choice of images is part of the error.
    """
    world = World(*WORLDS[name])
    estimates = [world.estimate(seed, evaluations) for seed in range(100)]
    for clip in (True, False):
        truth = sum(world.truth(clip))
        bounds = [e.clipped if clip else e.unclipped for e in estimates]
        misses = np.array([b.total - truth for b in bounds])
        errors = np.array([b.standard_error for b in bounds])
        said = math.sqrt(np.mean(errors**2))
        assert abs(misses.mean()) < 4 * said / 10
        # the standard deviation of a hundred values is known to 7 %
        assert 0.75 < misses.std(ddof=1) / said < 1.3
        covered = np.mean(np.abs(misses) < stats.t.ppf(0.975, 15) * errors)
        assert covered >= 0.87


@pytest.mark.long
def test_a_network_that_is_wrong_at_one_step_the_pilot_never_saw_is_found_out():
    """The random shifts reach every step in proportion; fixed quantiles would pass over it, or always hit it."""
    world = World(*WORLDS["linear-beta"])
    seen = set()

    def spy(xt, t):
        seen.update(t.tolist())
        return world.predict(xt, t)

    with pytest.raises(Interrupted):
        world.estimate(predict=spy, micro_batch=512, should_stop=lambda: bool(seen))  # one pass: the pilot
    wrong = min(set(range(1, 50)) - seen)
    world.gain[wrong] = world.gain_32[wrong] = -30.0
    middle = np.array([world.estimate(seed, evaluations=320).unclipped.middle for seed in range(120)])
    truth = world.truth(False)[1]
    without = World(*WORLDS["linear-beta"]).truth(False)[1]
    error = middle.std(ddof=1) / math.sqrt(len(middle))
    assert truth - without > 10 * error  # the step is seen to matter
    assert middle.mean() == pytest.approx(truth, abs=4 * error)


def test_importance_sampling_is_worth_its_name():
    """Uniform steps would need orders more; here twenty times the variance is demanded of a long chain."""
    world = World(Linear(), BetaTilde(), 1000)
    error = world.estimate(evaluations=4096).clipped.standard_error
    # one uniformly drawn step of one image, by the closed form of its second moment
    t = np.arange(1, 1000)
    squares = np.array([(DENSITY * np.square(np.subtract(*world.hat(8, i, True)))).sum() for i in t[::20]])
    squares = np.interp(t, t[::20], squares)
    terms = 999 * 0.5 * world.pull[t] ** 2 * squares / world.variance[t] / math.log(2)
    assert terms.std() / math.sqrt(4096) > 4.5 * error


def test_a_seed_gives_the_same_numbers_and_another_seed_others(linear):
    first, again, other = linear.estimate(3), linear.estimate(3), linear.estimate(4)
    assert first.clipped == again.clipped
    for name, array in first.draws.items():
        np.testing.assert_array_equal(array, again.draws[name])
    assert first.clipped.total != other.clipped.total


def test_the_number_does_not_depend_on_the_micro_batch(linear):
    """The denoiser here rounds alike in every batch: what is left is which noise goes to which draw."""
    bounds = [linear.estimate(micro_batch=size).clipped for size in (7, 100, 256, 4096)]
    assert all(b == bounds[0] for b in bounds)


def test_every_pass_has_the_same_size(linear):
    sizes = set()

    def predict(xt, t):
        sizes.add(len(xt))
        return linear.predict(xt, t)

    linear.estimate(predict=predict, micro_batch=100)
    assert sizes == {100}


def test_clipping_matters_where_the_network_is_wild_and_the_two_bounds_share_their_draws():
    world = World(Linear(), Beta(), 50, shrink=4.0)
    got = world.estimate(evaluations=8000)
    assert got.clipped.total < got.unclipped.total
    for bound, clip in ((got.clipped, True), (got.unclipped, False)):
        assert bound.total == pytest.approx(sum(world.truth(clip)), abs=4 * bound.standard_error)


def test_the_stored_draws_are_the_raw_material_of_another_sigma(linear):
    """The squared errors do not depend on sigma: the bound under beta-tilde comes from the passes made under beta."""
    draws = linear.estimate(evaluations=20_000).draws
    t = draws["t"]
    assert t.min() >= 1
    assert t.max() <= 49
    assert draws["proposal"].sum() == pytest.approx(1)
    np.testing.assert_array_equal(np.unique(draws["image"]), np.arange(COUNT))
    weight = linear.pull[t] ** 2 / (2 * linear.tilde[t])
    values = weight * draws["error_clipped"] / draws["proposal"][t] / (DIMS * math.log(2))
    truth = World(*WORLDS["linear-tilde"]).truth(clip=True)[1]
    assert values.mean() == pytest.approx(truth, rel=0.02)


def test_the_pilot_shapes_the_proposal_and_never_enters_the_estimate(linear):
    """A pilot that misleads costs precision, not truth."""
    got = linear.estimate(evaluations=20_000, pilot=torch.ones(3, 1, 2, 2))
    assert got.clipped.total == pytest.approx(sum(linear.truth(True)), abs=4 * got.clipped.standard_error)
    proposal = got.draws["proposal"]
    assert proposal[0] == 0
    assert (proposal[1:] > 0.0099 / 49).all()  # no step is out of reach


def test_a_chain_of_two_steps_works():
    world = World(Cosine(), Beta(), 2)
    got = world.estimate(evaluations=20_000)
    assert got.unclipped.total == pytest.approx(sum(world.truth(False)), abs=4 * got.unclipped.standard_error)


@pytest.mark.long
@pytest.mark.parametrize("T", [2, 50, 1000])
def test_progress_ends_at_one_and_the_evaluations_are_those_that_were_made(T):
    world, seen, rows = World(Cosine(), Beta(), T), [], []

    def predict(xt, t):
        rows.append(len(xt))
        return world.predict(xt, t)

    # micro-batches of one leave no padding, so that every row is an evaluation
    got = world.estimate(evaluations=32, micro_batch=1, predict=predict, on_progress=seen.append)
    assert got.evaluations == sum(rows)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


def test_a_network_that_is_not_finite_is_named_by_step_and_image(linear):
    def predict(xt, t):
        out = linear.predict(xt, t)
        out[t == 17] = torch.inf
        return out

    with pytest.raises(Diverged, match=r"x0hat is not finite at step 17 of image \d+"):
        linear.estimate(predict=predict, evaluations=4096)


def test_it_stops_when_asked(linear):
    seen = []
    with pytest.raises(Interrupted):
        linear.estimate(on_progress=seen.append, should_stop=lambda: len(seen) >= 2)
    assert len(seen) == 2
