"""What is asked of a sigma."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Sigma
from ddpmkit.plugin.tables import Array, Tables
from ddpmkit.testing.chains import chains
from ddpmkit.testing.check import NotAsked, fail, named

SLACK = 1e-6  # of a log-variance


def log_bounds(sigma: Sigma) -> None:
    """It gives finite log-variances, low at most high, the same when asked again; equal ones where it is fixed."""
    for tables in chains().values():
        if sigma.learned or sigma.fitted:
            contract.log_bounds(sigma, tables)
        else:
            contract.fixed_log_variance(sigma, tables)


def within_bounds(sigma: Sigma) -> None:
    """No variance is below beta-tilde_t, or above what data in [-1, 1] can have: beta-tilde_t + c_t^2.

    Var(x_{t-1} | x_t) = beta-tilde_t + c_t^2 Var(x_0 | x_t), and the last is from 0 to 1. Of a range some part must lie
    there. The first step has no lower bound, since beta-tilde_1 = 0.
    """
    for told, tables in chains().items():
        low, high = contract.log_bounds(sigma, tables)
        least, most = _possible(tables)
        for t, what in _outside(low, high, least, most, ranged=sigma.learned or sigma.fitted):
            fail(
                f"sigma '{sigma.name}' is outside its bounds ({told}): the variance {what} at step {t}, and it is from "
                f"{np.exp(least[t]):.6g} to {np.exp(most[t]):.6g}",
                "give the log of the variance sigma_t^2, not sigma_t or its log; it lies near beta_t and beta-tilde_t",
            )


def from_network(sigma: Sigma) -> None:
    """A learned variance is finite, passes a gradient, and begins within its bounds, where the network says 0."""
    if not sigma.learned:
        raise NotAsked("it is not learned")
    import torch

    tables = next(reversed(chains().values()))
    bounds = contract.log_bounds(sigma, tables)
    low, high = (torch.from_numpy(v[1::100]).float().reshape(-1, 1, 1, 1) for v in bounds)
    out = torch.zeros((len(low), 2, 3, 4), requires_grad=True)
    start = contract.network_log_variance(sigma, low, high, out)
    if not start.requires_grad:
        fail(f"sigma '{sigma.name}': from_network gives no gradient", "compute it from out, in torch")
    if bool(((start < low - 1e-4) | (start > high + 1e-4)).any()):
        fail(
            f"sigma '{sigma.name}' is outside its bounds where the network says 0, as one that is fresh does",
            "let out = 0 mean a log-variance from low to high",
        )
    (slope,) = torch.autograd.grad(start.sum(), out)
    for value in (-3.0, 3.0):
        answer = contract.network_log_variance(sigma, low, high, torch.full_like(out, value))
        if not bool(torch.isfinite(answer).all()):
            fail(f"sigma '{sigma.name}': from_network gives a value that is not finite for {value:g}", "look there")
    if not bool((slope != 0).any()):
        fail(f"sigma '{sigma.name}' does not depend on the network's output", "compute it from out")


def x0_variance(sigma: Sigma) -> None:
    """A fitted variance of x0 is from 0 to 1, as that of pixels in [-1, 1] is."""
    if not sigma.fitted:
        raise NotAsked("it is not fitted")
    for told, tables in chains().items():
        # Data of variance 1/4, known exactly: Var(x0 | x_t) = s^2 S^2 / (m^2 s^2 + S^2), and eps = (x - m x0) / S.
        error = 0.25 * tables.noise2 / (tables.signal**2 * 0.25 + tables.noise2)
        ratio = np.minimum(tables.signal**2 / tables.noise2 * error, 1.0)
        statistics = {"eps_squared": 1 - ratio, "error": error, "error_clipped": error}
        variance = contract.x0_variance(sigma, tables, statistics)
        if (variance > 1 + SLACK).any():
            t = int(np.argmax(variance > 1 + SLACK))
            fail(
                f"sigma '{sigma.name}' is outside its bounds ({told}): it says that x0 has the variance "
                f"{variance[t]:.6g} at step {t}, and pixels in [-1, 1] have at most 1",
                "give Var(x0 | x_t) per dimension, not of the noise or of the step back",
            )


def last_variance(sigma: Sigma) -> None:
    """The most that the last noisy step adds is a number above 0."""
    for levels in (2, 17, 256):
        contract.largest_last_variance(sigma, levels)


def _possible(tables: Tables) -> tuple[Array, Array]:
    with np.errstate(divide="ignore"):
        least = np.log(tables.posterior_variance)
    return least, np.log(tables.posterior_variance + tables.posterior_x0**2)


def _outside(low: Array, high: Array, least: Array, most: Array, *, ranged: bool) -> Iterator[tuple[int, str]]:
    below, above = (high, low) if ranged else (low, high)  # of a range, the end that comes nearest
    for t in range(1, len(low)):
        if below[t] < least[t] - SLACK:
            yield t, f"is {np.exp(below[t]):.6g}"
        if above[t] > most[t] + SLACK:
            yield t, f"is {np.exp(above[t]):.6g}"


CHECKS = named(log_bounds, within_bounds, from_network, x0_variance, last_variance)
