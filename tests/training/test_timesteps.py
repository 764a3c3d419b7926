"""Which steps a batch is trained on: the laws of the draws, unbiasedness, and how soon importance pays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit.diffusion.tables_for import fixed_log_variance, tables_for
from ddpmkit.training.timesteps import Importance, Stratified, Uniform, timesteps

torch.set_num_threads(1)
CPU = torch.device("cpu")


def stream(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.rand(n, generator=generator)


@pytest.mark.parametrize("T", [2, 7, 1000])
def test_uniform_steps_are_the_floor_of_u_times_T(T):
    u = torch.tensor([0.0, 0.25, 0.5, 0.999999])
    t, factors = Uniform(T).draw(u)
    assert t.tolist() == [int(v * T) for v in u.tolist()]
    assert factors is None


@pytest.mark.parametrize(("T", "size"), [(1000, 64), (10, 64), (100, 7)])
def test_stratified_steps_have_one_in_each_part_and_are_even_on_the_whole(T, size):
    choice, draw = Stratified(T), stream(0)
    counts = torch.zeros(T)
    for _ in range(400):
        t, factors = choice.draw(draw(size))
        assert factors is None
        part = torch.floor(torch.arange(size) * T / size)
        assert ((t >= part) & (t <= torch.ceil((torch.arange(size) + 1) * T / size) - 1)).all()
        counts += torch.bincount(t, minlength=T)
    expected = 400 * size / T
    assert float(((counts - expected) ** 2 / expected).sum()) < T + 6 * np.sqrt(2 * T)
    assert choice.draw(torch.full((size,), 1 - 2**-24))[0].max() == T - 1


def vlb_losses(schedule, T=1000):
    """The VLB's weight times a typical eps-error: what importance sampling was made for."""
    tables = tables_for(ddpmkit.build("schedule", schedule), T)
    log_sigma2 = fixed_log_variance(ddpmkit.build("sigma", "beta-tilde"), tables)
    weight = ddpmkit.build("weighting", "vlb").weights(tables, log_sigma2) / tables.snr
    error = tables.noise2**-0.5 * 0.05  # falls with t, as a trained network's does
    return torch.from_numpy(weight * np.minimum(error, 1)).float()


def learned(choice, losses, steps, seed=0, size=64):
    """Let it see so many batches of noisy losses; return it."""
    draw, generator = stream(seed), torch.Generator().manual_seed(seed + 1)
    for _ in range(steps):
        t, _ = choice.draw(draw(size))
        choice.learn(t, losses[t] * torch.rand(size, generator=generator) * 2)
    return choice


def variance_of_the_estimate(p, losses):
    """Var of L_t / (T p_t) for noisy L_t: E L_t^2 = 4/3 of its squared mean."""
    second = (4 / 3 * losses**2 / p).sum() / len(p) ** 2
    return float(second - losses.mean() ** 2)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [100, 300])
def test_importance_pays_within_a_few_hundred_steps(schedule, steps):
    losses = vlb_losses(schedule)
    found = learned(Importance(1000, CPU), losses, steps).probabilities()
    uniform = torch.full((1000,), 1e-3)
    best = losses / losses.sum()
    gain = variance_of_the_estimate(uniform, losses) / variance_of_the_estimate(found, losses)
    most = variance_of_the_estimate(uniform, losses) / variance_of_the_estimate(best, losses)
    # Measured 160 and 200 of at most 334 (linear), 330 and 460 of 2,825 (cosine, one step of which weighs 499.5).
    assert gain > {"linear": 120, "cosine": 250}[schedule]
    assert gain < most


def test_before_it_has_seen_anything_importance_is_uniform():
    choice = Importance(100, CPU)
    torch.testing.assert_close(choice.probabilities(), torch.full((100,), 0.01))
    t, factors = choice.draw(torch.linspace(0, 0.999, 50))
    torch.testing.assert_close(factors, torch.ones(50))
    assert t.min() == 0
    assert t.max() == 99


def test_importance_is_unbiased_and_draws_in_proportion():
    losses = torch.linspace(0.1, 3, 50)
    choice = learned(Importance(50, CPU), losses, 200)
    p = choice.probabilities()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    t, factors = choice.draw((torch.arange(200_000) + 0.5) / 200_000)  # every quantile: no Monte-Carlo error
    np.testing.assert_allclose(torch.bincount(t, minlength=50) / 200_000, p, atol=1e-4)
    assert float((factors * losses[t]).mean()) == pytest.approx(float(losses.mean()), rel=1e-3)
    torch.testing.assert_close(factors, 1 / (50 * p[t]))


@pytest.mark.long
def test_in_the_end_p_is_in_proportion_to_the_root_mean_square_and_never_below_its_floor():
    losses = torch.logspace(0, 1, 40)
    losses[7] = 0.0
    p = learned(Importance(40, CPU), losses, 3000, size=256).probabilities()
    rest = [t for t in range(40) if abs(t - 7) > 4]  # the neighbours of the hole lean on it a little
    np.testing.assert_allclose(p[rest] / p[rest].sum(), losses[rest] / losses[rest].sum(), rtol=0.35)
    assert Importance.FLOOR / 40 <= float(p[7]) < 0.6 * float(p[[6, 8]].mean())


def test_a_lone_step_that_outweighs_all_others_is_found():
    """The last step of the cosine schedule weighs 499.5 in the bound, its neighbour 1.5."""
    losses = torch.full((1000,), 0.01)
    losses[999] = 25.0
    p = learned(Importance(1000, CPU), losses, 300).probabilities()
    due = float(losses[999] / losses.sum())
    assert float(p[999]) > due / 4


def test_old_losses_are_forgotten():
    choice = learned(Importance(20, CPU), torch.where(torch.arange(20) < 10, 10.0, 1.0), 300)
    first = choice.probabilities()
    second = learned(choice, torch.where(torch.arange(20) < 10, 1.0, 10.0), 300, seed=9).probabilities()
    assert first[:10].sum() > 0.75
    assert second[:10].sum() < 0.3


def test_what_was_learned_is_put_back_bit_for_bit():
    choice = learned(Importance(30, CPU), torch.linspace(0.1, 1, 30), 20)
    other = timesteps("importance", 30, CPU)
    other.restore({k: v.clone() for k, v in choice.state().items()})
    u = torch.linspace(0, 0.99, 40)
    for a, b in zip(choice.draw(u), other.draw(u), strict=True):
        assert torch.equal(a, b)
    assert timesteps("uniform", 30, CPU).state() == {} == timesteps("stratified", 30, CPU).state()
