"""The samplers where every sample's law is known: Gaussian data with the exact denoiser, and a single image."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from ddpmkit.builtin.predictions.eps import Eps
from ddpmkit.builtin.predictions.x0 import X0
from ddpmkit.builtin.samplers.ancestral import Ancestral
from ddpmkit.builtin.samplers.ddim import Ddim
from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.sigmas.beta import Beta
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde
from ddpmkit.diffusion.denoise import predictor
from ddpmkit.diffusion.reverse_variance import step_sigmas
from ddpmkit.diffusion.tables_for import fixed_log_variance, tables_for
from ddpmkit.errors import DdpmkitError, Diverged, Interrupted
from ddpmkit.plugin.interfaces import Denoised, Schedule
from ddpmkit.randomness import normal, stream_key
from ddpmkit.sampling import sample, with_sigma

torch.set_num_threads(1)
N, SHAPE = 5000, (4,)


@dataclass(frozen=True)
class Walk(Schedule):
    """The random walk x_t = x_{t-1} + eps_t / 2, whose prior is wide."""

    name = "walk"

    def steps(self, T):
        return np.ones(T), np.full(T, 0.25)

    def prior_variance(self, T):
        return 1.0 + 0.25 * T


def walk(sampler, predict, tables, log_sigma2, noise):
    """Walk with a denoiser and log-variances; a sampler that does not use the sigma axis takes its own."""
    deviations = np.exp(log_sigma2 / 2) if sampler.uses_sigma else np.sqrt(sampler.kernel(tables)[0])
    return sampler.sample(lambda x, t: Denoised(predict(x, t), float(deviations[t])), tables, noise)


def noise_of(seed):
    key = stream_key(seed, "sampling")
    return lambda k: normal(key, torch.arange(N), SHAPE, k)


def marginals(schedule, T, times):
    """m_t and S_t^2 of the visited steps, multiplied out, with the clean image in front."""
    a, b2 = schedule.steps(T)
    m, s2 = [1.0], [0.0]
    for t in range(T):
        m.append(a[t] * m[-1])
        s2.append(a[t] ** 2 * s2[-1] + b2[t])
    chosen = [0] + [t + 1 for t in times]
    return np.asarray(m)[chosen], np.asarray(s2)[chosen]


def exact_denoiser(m, s2, mu, s):
    """E[x0 | x_t] of N(mu, s^2), step t of the walk at place t + 1 of m and s2."""

    def predict(x, t):
        gain = m[t + 1] * s**2 / (m[t + 1] ** 2 * s**2 + s2[t + 1])
        return mu + float(gain) * (x - float(m[t + 1]) * mu)

    return predict


def law(m, s2, mu, s, step_variance, prior_variance, ddim):
    """Mean and variance of what comes out: a linear map of a Gaussian, step by step, without the tables."""
    mean, variance = 0.0, prior_variance
    for t in range(len(m) - 1, 0, -1):
        gain = m[t] * s**2 / (m[t] ** 2 * s**2 + s2[t])
        lam = step_variance[t - 1] if t > 1 else 0.0
        if ddim:
            on_x0, on_eps = m[t - 1], math.sqrt(s2[t - 1] - lam)
            # eps = (x - m x0) / S
            on_x0, on_x = on_x0 - on_eps * m[t] / math.sqrt(s2[t]), on_eps / math.sqrt(s2[t])
        else:
            a = m[t] / m[t - 1]
            b2 = s2[t] - a**2 * s2[t - 1]
            on_x0, on_x = m[t - 1] * b2 / s2[t], a * s2[t - 1] / s2[t]
        slope = on_x0 * gain + on_x
        mean = slope * mean + on_x0 * (mu - gain * m[t] * mu)
        variance = slope**2 * variance + lam
    return mean, variance


def step_variances(m, s2, which):
    """b^2 or the posterior variance of each visited step."""
    a = m[1:] / m[:-1]
    b2 = s2[1:] - a**2 * s2[:-1]
    return b2 if which == "beta" else b2 * s2[:-1] / s2[1:]


CASES = [
    (Ancestral(clip="none"), "beta"),
    (Ancestral(clip="none"), "beta-tilde"),
    (Ddim(clip="none"), "none"),
    (Ddim(eta=0.5, clip="none"), "half"),
    (Ddim(eta=1.0, clip="none"), "beta-tilde"),
]


@pytest.mark.parametrize(("mu", "s"), [(0.0, 1.0), (0.4, 0.5), (-2.0, 0.1)])
@pytest.mark.parametrize("count", [100, 10, 1])
@pytest.mark.parametrize(("sampler", "which"), CASES, ids=["beta", "tilde", "ddim-0", "ddim-half", "ddim-1"])
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Walk()], ids=lambda v: v.name)
def test_samples_of_a_gaussian_have_the_mean_and_the_variance_that_the_algebra_says(
    schedule, sampler, which, count, mu, s
):
    times = list(sampler.timesteps(100, count))
    m, s2 = marginals(schedule, 100, times)
    tables = tables_for(schedule, 100).strided(times)
    sigma = {"beta": Beta(), "beta-tilde": BetaTilde()}.get(which, Beta())
    factor = {"none": 0.0, "half": 0.25}.get(which, 1.0)
    variances = factor * step_variances(m, s2, "beta" if which == "beta" else "beta-tilde")
    mean, variance = law(m, s2, mu, s, variances, schedule.prior_variance(100), isinstance(sampler, Ddim))
    x = walk(sampler, exact_denoiser(m, s2, mu, s), tables, fixed_log_variance(sigma, tables), noise_of(1)).double()
    n = x.numel()
    assert float(x.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / n) + 1e-5)
    assert float(x.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n), abs=1e-9)


@pytest.mark.long
@pytest.mark.parametrize(
    ("sampler", "sigma", "mu", "s", "T"),
    [
        (Ancestral(clip="none"), Beta(), 0.0, 1.0, 100),  # exact at any T
        (Ancestral(clip="none"), BetaTilde(), 0.4, 0.3, 400),
        (Ancestral(clip="none"), Beta(), 0.4, 0.3, 400),
        (Ddim(clip="none"), Beta(), 0.4, 0.3, 400),
    ],
    ids=["beta-exact", "tilde", "beta", "ddim"],
)
def test_samples_of_a_long_chain_are_distributed_as_the_data(sampler, sigma, mu, s, T):
    m, s2 = marginals(Linear(), T, range(T))
    tables = tables_for(Linear(), T)
    x = walk(sampler, exact_denoiser(m, s2, mu, s), tables, fixed_log_variance(sigma, tables), noise_of(2)).double()
    assert float(x.mean()) == pytest.approx(mu, abs=5 * s / math.sqrt(x.numel()) + 0.003)
    assert float(x.std()) == pytest.approx(s, rel=0.04)


@pytest.mark.parametrize("count", [1, 2, 10, 100])
@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=lambda v: v.name)
def test_ddim_without_noise_on_unit_data_turns_each_start_by_a_product_of_cosines(schedule, count):
    """m = cos(phi), S = sin(phi), x0hat = m x: a step multiplies x by m' m + S' S = cos(phi' - phi)."""
    sampler = Ddim(clip="none")
    times = list(sampler.timesteps(100, count))
    m, s2 = marginals(schedule, 100, times)
    factor = np.cos(np.diff(np.arctan2(np.sqrt(s2), m))).prod()
    tables = tables_for(schedule, 100).strided(times)
    out = walk(sampler, exact_denoiser(m, s2, 0.0, 1.0), tables, np.zeros(count), noise_of(5))
    torch.testing.assert_close(out, float(factor) * noise_of(5)(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", [Ddim(), Ddim(eta=1.0), Ancestral()], ids=str)
def test_a_single_image_is_reached_exactly_whatever_the_noise(sampler):
    tables = tables_for(Linear(), 100).strided(sampler.timesteps(100, 7))
    out = walk(
        sampler, lambda x, t: torch.full_like(x, -0.625), tables, fixed_log_variance(Beta(), tables), noise_of(0)
    )
    torch.testing.assert_close(out, torch.full_like(out, -0.625), rtol=0, atol=1e-6)


def test_ddim_with_eta_1_is_ancestral_sampling_with_beta_tilde():
    """The same trajectory from the same noise, with a denoiser that is not linear."""
    tables = tables_for(Cosine(), 40)
    log_sigma2 = fixed_log_variance(BetaTilde(), tables)

    def predict(x, t):
        return torch.tanh(2 * x + t / 40)

    ddim = walk(Ddim(eta=1.0), predict, tables, log_sigma2, noise_of(3))
    ancestral = walk(Ancestral(), predict, tables, log_sigma2, noise_of(3))
    torch.testing.assert_close(ddim, ancestral, rtol=0, atol=2e-5)


@pytest.mark.parametrize("clip", ["static", "none"])
@pytest.mark.parametrize("kind", ["ancestral", "ddim"])
def test_clipping_comes_before_the_step_and_eps_is_derived_again(kind, clip):
    beta = Linear().betas(50)
    ab = np.concatenate([[1.0], np.cumprod(1 - beta)])

    def predict(x, t):
        return 1.2 * x + 0.1

    noise = noise_of(4)
    x = noise(0).double()
    expected, walked = [], []  # the whole walk: where it ends, clipping has made everything alike
    for k, t in enumerate(range(50, 0, -1)):
        expected.append(x)
        x0 = predict(x, t)
        x0 = x0.clamp(-1, 1) if clip == "static" else x0
        if kind == "ddim":
            x = math.sqrt(ab[t - 1]) * x0 + math.sqrt((1 - ab[t - 1]) / (1 - ab[t])) * (x - math.sqrt(ab[t]) * x0)
        else:
            b = beta[t - 1]
            x = (math.sqrt(ab[t - 1]) * b * x0 + math.sqrt(1 - b) * (1 - ab[t - 1]) * x) / (1 - ab[t])
            x = x + math.sqrt(b) * noise(k + 1).double() * (t > 1)
    tables = tables_for(Linear(), 50)
    sampler = Ancestral(clip=clip) if kind == "ancestral" else Ddim(clip=clip)

    def spy(x, t):
        walked.append(x.double())
        return predict(x, t)

    walked.append(walk(sampler, spy, tables, fixed_log_variance(Beta(), tables), noise).double())
    torch.testing.assert_close(torch.stack(walked), torch.stack([*expected, x]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [50, 5, 1])
@pytest.mark.parametrize(("sampler", "expected"), [(Ancestral(), "all"), (Ddim(eta=0.3), "all"), (Ddim(), "first")])
def test_the_last_step_of_the_walk_adds_no_noise_and_each_other_step_its_own(sampler, expected, count):
    asked = []

    def noise(k):
        asked.append(k)
        return noise_of(0)(k)

    tables = tables_for(Linear(), 50).strided(sampler.timesteps(50, count))
    last = {}

    def predict(x, t):
        last[t] = torch.tanh(x)
        return last[t]

    out = walk(sampler, predict, tables, fixed_log_variance(Beta(), tables), noise)
    assert asked == (list(range(count)) if expected == "all" else [0])
    assert sorted(last) == list(range(count))
    torch.testing.assert_close(out, last[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sampler", [Ancestral(), Ddim()], ids=lambda v: v.name)
def test_the_walk_starts_from_the_prior_of_its_chain(sampler):
    seen = []

    def predict(x, t):
        seen.append(x)
        return x

    tables = tables_for(Walk(), 100)
    walk(sampler, predict, tables, fixed_log_variance(Beta(), tables), noise_of(0))
    torch.testing.assert_close(seen[0], noise_of(0)(0) * math.sqrt(26))


def test_fifty_of_a_thousand_steps_are_those_of_openai():
    times = Ancestral().timesteps(1000, 50)
    assert times[:5] == [0, 20, 41, 61, 82]
    assert times[-2:] == [979, 999]
    assert Ddim().timesteps(1000, 50) == times


def test_steps_are_even_rise_and_reach_both_ends():
    for T in range(2, 45):
        for count in range(1, T + 1):
            times = list(Ancestral().timesteps(T, count))
            assert len(times) == len(set(times)) == count
            assert times == sorted(times)
            assert times[-1] == T - 1
            if count > 1:
                assert times[0] == 0
                assert np.abs(np.asarray(times) - np.linspace(0, T - 1, count)).max() < 0.5 + 1e-9
        assert list(Ancestral().timesteps(T, T)) == list(range(T))


@pytest.mark.parametrize("count", [0, -1, 101])
def test_more_steps_than_the_chain_has_are_refused(count):
    with pytest.raises(DdpmkitError, match=f"{count} sampling steps of a chain with T=100") as caught:
        Ancestral().timesteps(100, count)
    assert "1 to 100" in caught.value.hint


class Small(nn.Module):
    """A network whose floating point depends on the batch it runs in, as convolutions do."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 1, 3, padding=1))

    def forward(self, x, t):
        return self.layers(x) * (t / 1000).reshape(-1, 1, 1, 1)


def draw(predict, count, micro_batch=16, seed=0, sampler=None, **options):
    tables = tables_for(Linear(), 50).strided(Ancestral().timesteps(50, 6))
    sampler = sampler or Ancestral()
    deviations = step_sigmas(sampler, Beta(), tables, tables, 17, None)
    return sample(
        lambda x, t: Denoised(predict(x, t), float(deviations[t])),
        tables,
        sampler,
        count=count,
        shape=(1, 8, 8),
        levels=options.pop("levels", 256),
        seed=seed,
        micro_batch=micro_batch,
        device=torch.device("cpu"),
        **options,
    )


def small_denoiser():
    chain = tables_for(Linear(), 50).strided(Ancestral().timesteps(50, 6))
    denoise = with_sigma(predictor(Small(), chain, Eps(), torch.device("cpu")), np.zeros(6))
    return lambda x, t: denoise(x, t).x0


@pytest.mark.parametrize("sampler", [Ancestral(), Ddim(), Ddim(eta=1.0)], ids=str)
def test_image_i_is_the_same_bits_however_many_are_drawn(sampler):
    many = draw(small_denoiser(), 64, sampler=sampler)
    assert many.shape == (64, 1, 8, 8)
    assert many.dtype == torch.uint8
    for count in (1, 7, 16, 17, 63):
        assert torch.equal(draw(small_denoiser(), count, sampler=sampler), many[:count])
    assert len({tuple(image.flatten().tolist()) for image in many}) == 64


def test_noise_belongs_to_the_image_and_not_to_its_place_in_a_batch():
    """A denoiser that treats pixels one by one rounds alike in every batch."""
    draws = [draw(lambda x, t: torch.tanh(x), 20, micro_batch=size) for size in (1, 3, 16, 64)]
    for other in draws[1:]:
        assert torch.equal(draws[0], other)
    assert not torch.equal(draws[0], draw(lambda x, t: torch.tanh(x), 20, seed=1))


def test_the_network_always_runs_on_full_micro_batches():
    sizes = set()

    def predict(x, t):
        sizes.add(len(x))
        return torch.tanh(x)

    draw(predict, 7)
    draw(predict, 33)
    assert sizes == {16}


def test_images_are_quantised_to_the_levels_of_the_data():
    out = draw(lambda x, t: torch.full_like(x, 0.49), 3, levels=17)
    assert set(out.flatten().tolist()) == {12}  # (0.49 + 1) * 8 = 11.92


def test_an_image_that_is_not_finite_is_named_and_padding_is_not():
    def poisoned(row):
        def predict(x, t):
            out = torch.tanh(x)
            out[row] = torch.nan
            return out

        return predict

    with pytest.raises(Diverged, match="image 3 is not finite"):
        draw(poisoned(3), 7)
    assert draw(poisoned(7), 7).shape[0] == 7

    calls = []

    def second_batch(x, t):
        calls.append(t)
        return poisoned(2)(x, t) if len(calls) > 6 else torch.tanh(x)

    with pytest.raises(Diverged, match="image 18 is not finite"):
        draw(second_batch, 20)


def test_sampling_reports_its_progress_and_stops_when_asked():
    seen = []
    draw(lambda x, t: torch.tanh(x), 20, on_progress=seen.append)
    assert seen == [16, 20]
    seen.clear()
    with pytest.raises(Interrupted, match="stopped after 16 of 20"):
        draw(lambda x, t: torch.tanh(x), 20, on_progress=seen.append, should_stop=lambda: bool(seen))


@pytest.mark.parametrize("prediction", [Eps(), X0()], ids=str)
def test_the_denoiser_tells_the_network_scaled_inputs_and_the_full_chains_time(prediction):
    told = {}

    class Told(nn.Module):
        def forward(self, x, t):
            told.update(x=x, t=t)
            return torch.full_like(x, 0.25)

    tables = tables_for(Walk(), 50).strided([0, 10, 49])
    predict = predictor(Told(), tables, prediction, torch.device("cpu"))
    denoise = with_sigma(predict, np.asarray([0.0, 0.5, 0.25]))
    x = torch.full((3, 1, 2, 2), 2.0)
    for t, steps in ((2, [2, 2, 2]), (torch.tensor([0, 1, 2]), [0, 1, 2])):
        hat = predict(x, t)[0] if isinstance(t, torch.Tensor) else denoise(x, t).x0
        variance = torch.tensor([0.25 * (i + 1) for i in (0, 10, 49)])[torch.tensor(steps)].reshape(3, 1, 1, 1)
        assert told["t"].tolist() == [20.0 * (0, 10, 49)[s] for s in steps]
        torch.testing.assert_close(told["x"], 2 / (1 + variance).sqrt() * torch.ones_like(x))
        expected = 2 - variance.sqrt() * 0.25 if prediction == Eps() else torch.tensor(0.25)
        torch.testing.assert_close(hat, expected * torch.ones_like(x))
    assert [denoise(x, t).sigma for t in range(3)] == [0.0, 0.5, 0.25]
    assert [denoise(x, t).quiet for t in range(3)] == [True, False, False]


def test_a_step_that_is_asked_for_twice_has_new_noise_of_its_own_each_time():
    """A corrector that draws by itself, as Langevin steps do: the generators are seeded anew at each call."""

    from ddpmkit.plugin.interfaces import Denoised
    from ddpmkit.sampling import sample

    drawn = []

    class Corrector:
        name = "corrector"

        def sample(self, denoise, tables, noise):
            x = noise(0)
            for _ in range(3):
                denoise(x, 0)
                drawn.append(torch.randn(4))
            return x

    tables = tables_for(Linear(), 40).strided([0])
    options = {"count": 1, "shape": (1, 4, 4), "levels": 17, "seed": 1, "micro_batch": 1, "device": torch.device("cpu")}
    for _ in range(2):
        sample(lambda x, t: Denoised(x, 0.0), tables, Corrector(), **options)
    assert len({tuple(d.tolist()) for d in drawn[:3]}) == 3
    assert torch.equal(torch.stack(drawn[:3]), torch.stack(drawn[3:]))
