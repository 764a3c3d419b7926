"""A bound along log SNR: parts that sum to it, and in a world of Gaussians the closed form that all schedules share."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from ddpmkit.diffusion.by_log_snr import each_step, shares, widest
from ddpmkit.diffusion.log_snr_between import log_snr_between
from ddpmkit.diffusion.tables_for import Array, Tables, tables_for
from ddpmkit.likelihood.draws import blocks
from ddpmkit.plugin.registry import Registry

VARIANCES = np.array([1.0, 0.3, 0.1, 0.03, 0.003])  # of the dimensions of Gaussian data around zero
EDGES = np.arange(-4.0, 4.0)  # inside the log SNRs that every chain here visits
SCHEDULES = ("linear", "cosine", "sigmoid")


def chain(name: str, T: int) -> Tables:
    return tables_for(Registry(installed=False).build("schedule", name), T)


def terms(tables: Tables) -> Array:
    """L_{t-1} of the best network under sigma^2 = beta-tilde, bits/dim: 1/2 (SNR_{t-1} - SNR_t) Var(x0 | x_t)."""
    left = (VARIANCES / (1 + tables.snr[:, None] * VARIANCES)).mean(1)
    return np.r_[0.0, 0.5 * -np.diff(tables.snr) * left[1:]] / math.log(2)


def closed_form(low: float, high: float) -> float:
    """The same from one log SNR to another in the limit of many steps: 1/2 ln (1 + v e^high) / (1 + v e^low)."""
    upper, lower = (np.log1p(VARIANCES * math.exp(at)) for at in (high, low))
    return float((upper - lower).mean()) / 2 / math.log(2)


def blocked(steps: Array) -> tuple[Array, Array]:
    """What a record has of the steps: the last step of each block, and the mean over it."""
    block = blocks(len(steps))
    count = np.bincount(block)
    return np.cumsum(count).astype(np.float64), np.bincount(block, steps) / count


def test_a_step_lies_evenly_between_the_noise_levels_at_its_ends() -> None:
    found = shares(np.array([6.0, 2.0, -1.0, -5.0]), np.array([0.0, 4.0]))
    expected = [[0, 0, 1 / 3, 1], [0, 0.5, 2 / 3, 0], [0, 0.5, 0, 0]]
    assert found == pytest.approx(np.array(expected), abs=1e-15)


def test_a_step_from_no_signal_lies_at_its_upper_end() -> None:
    found = shares(np.array([3.0, -2.0, -np.inf]), np.array([-4.0, -1.0]))
    assert found[:, 2].tolist() == [0, 1, 0]
    # One that is no step at all, too: what follows the last step that a record knows.
    assert shares(np.array([3.0, -2.0, -2.0]), np.array([-4.0, -1.0]))[:, 2].tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", [*SCHEDULES, "zero-snr:base=linear", "laplace", "random-walk"])
def test_the_parts_sum_to_the_bound(name: str) -> None:
    tables = chain(name, 200)
    with np.errstate(divide="ignore"):
        share = shares(np.log(tables.snr), EDGES)
    steps = terms(tables)
    assert (share >= 0).all()
    assert share[:, 1:].sum(0) == pytest.approx(1.0, abs=1e-14)
    assert (share @ steps).sum() == pytest.approx(steps.sum(), abs=1e-12)
    spread = each_step(*blocked(steps))
    assert (share @ spread).sum() == pytest.approx(steps.sum(), abs=1e-12)


def test_every_block_keeps_its_sum_and_every_seed_its_own() -> None:
    steps = terms(chain("cosine", 1000)) + 1e-4 * np.sin(np.arange(1000.0))
    last, bits = blocked(np.r_[0.3, steps[1:]])
    both = each_step(last, np.stack([bits, 2 * bits]))
    assert both[1] == pytest.approx(2 * both[0], abs=1e-13)
    assert both[0][0] == pytest.approx(0.3)
    starts = np.r_[0, last[:-1]].astype(int)
    assert np.add.reduceat(both[0], starts) == pytest.approx(bits * np.diff(last, prepend=0), abs=1e-14)
    assert each_step(np.arange(1.0, 4.0), np.array([0.1, np.nan, 0.2])).tolist() == [0.1, 0.0, 0.2]


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_bin_is_the_closed_form_as_the_steps_grow_many(name: str) -> None:
    exact = [closed_form(a, b) for a, b in pairwise(EDGES)]
    errors = []
    for T in (100, 1000, 10000):
        tables = chain(name, T)
        # Linear betas are those of T = 1000 scaled, so that a chain of any length visits much the same noise levels.
        found = shares(np.log(tables.snr), EDGES) @ terms(tables)
        errors.append(np.abs(found[1:-1] - exact).max())
    assert errors[0] < 0.05
    assert errors[1] < errors[0] / 8
    assert errors[2] < errors[1] / 8


def test_two_schedules_with_one_bound_differ_in_no_bin() -> None:
    found = {}
    for T in (100, 1000, 10000):
        laid = [shares(np.log(c.snr), EDGES) @ terms(c) for c in (chain("linear", T), chain("cosine", T))]
        found[T] = np.abs(np.diff(laid, axis=0)[0][1:-1]).max()
    assert found[10000] < 2e-4
    assert found[10000] < found[1000] / 8 < found[100] / 64
    # And each step's own place is what makes it so: by t, or with L_T and L_0 at hand, the two have nothing in common.
    assert np.abs(terms(chain("linear", 1000)) - terms(chain("cosine", 1000))).max() > 1e-3


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_a_record_keeps_of_the_steps_is_enough(name: str) -> None:
    tables = chain(name, 1000)
    share, steps = shares(np.log(tables.snr), EDGES), terms(tables)
    last, bits = blocked(steps)
    exact, found, even = (
        share @ v for v in (steps, each_step(last, bits), np.repeat(bits, np.diff(last, prepend=0).astype(int)))
    )
    assert np.abs(found - exact).max() < 1e-3
    assert np.abs(found - exact).max() < np.abs(even - exact).max() / 2


def recorded(name: str, T: int) -> tuple[Array, Array, Array]:
    """ln SNR of every step from 101 of them, as old records have them, and as it is."""
    with np.errstate(divide="ignore"):
        exact = np.log(chain(name, T).snr)
    t = np.unique(np.linspace(0, T - 1, 101).round().astype(int))
    t = t[np.isfinite(exact[t])]
    return log_snr_between(t + 1.0, exact[t], np.arange(1.0, T + 1), T), exact, t + 1.0


@pytest.mark.parametrize("T", [50, 1000, 4000])
@pytest.mark.parametrize(
    "name",
    ["linear", "cosine", "sigmoid", "quadratic", "constant", "cosine-gamma", "sigmoid-gamma", "jsd", "laplace",
     "one-minus-t", "random-walk", "rescaled", "warmup", "zero-snr:base=linear", "zero-snr:base=cosine"],
)  # fmt: skip
def test_the_log_snr_of_each_step_is_near_enough_where_the_bits_are(name: str, T: int) -> None:
    found, exact, known = recorded(name, T)
    inside = np.arange(1, T + 1) <= known[-1]
    off = np.abs(np.subtract(found, exact, where=inside, out=np.zeros(T)))
    assert off[exact >= 0].max(initial=0.0) < (0.045 if name == "random-walk" else 0.004)
    assert off[: int(0.97 * T)].max() < 0.06
    assert (np.diff(found[inside]) < 0).all()
    assert off[known.astype(int) - 1].max() < 1e-6
    if T == 50:
        assert off.max() < 1e-6


@pytest.mark.parametrize("name", ["zero-snr:base=linear", "jsd"])
def test_one_step_alone_has_no_signal_at_the_end(name: str) -> None:
    found, exact, known = recorded(name, 1000)
    assert known[-1] == 990
    assert np.isneginf(found).tolist() == np.isneginf(exact).tolist() == [False] * 999 + [True]
    assert (np.diff(found[989:]) < 0).all()
    assert np.abs(found[989:999] - exact[989:999]).max() < 0.25


def test_chains_of_one_step_and_of_two() -> None:
    assert log_snr_between(np.array([1.0]), np.array([3.0]), np.array([1.0, 2.0]), 2).tolist() == [
        pytest.approx(3.0),
        -np.inf,
    ]
    assert log_snr_between(np.array([1.0]), np.array([3.0]), np.array([1.0]), 1) == pytest.approx([3.0])
    assert np.isneginf(log_snr_between(np.zeros(0), np.zeros(0), np.array([1.0]), 1)).all()
    assert shares(np.array([3.0]), np.array([0.0, 4.0])).tolist() == [[0.0], [0.0], [0.0]]


def test_the_widest_step_is_of_those_that_reach_between_the_edges() -> None:
    edges = np.array([0.0, 4.0, 8.0])
    assert widest(np.array([20.0, 9.0, 6.0, 1.0, -0.5, -30.0, -np.inf]), edges) == 5.0
    assert widest(np.array([3.0]), edges) == 0.0
