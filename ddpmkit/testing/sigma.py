"""What is asked of a sigma."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Sigma
from ddpmkit.plugin.tables import Array, Tables
from ddpmkit.testing.chains import chain, chains
from ddpmkit.testing.check import NotAsked, fail, named
from ddpmkit.testing.process import leaves_alone

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 1e-6  # of a log-variance
OFF = 1.5  # a variance of x0 that is off by more, at most steps, is that of something else


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

    low, high = _of_images(sigma)
    out = torch.zeros((len(low), 2, 3, 4), requires_grad=True)
    start = contract.network_log_variance(sigma, low, high, out)
    if start.dtype != out.dtype:
        fail(
            f"sigma '{sigma.name}': from_network gives {start.dtype}, not {out.dtype}",
            "leave precision to ddpmkit: compute in the dtype of out",
        )
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
        off = np.abs(np.log(np.maximum(variance, 1e-12) / np.maximum(error, 1e-12))) > np.log(OFF)
        if off.mean() > 0.5:
            t = int(np.argmax(off))
            fail(
                f"sigma '{sigma.name}' ({told}): told what an exact network makes of data of variance 1/4, it says "
                f"that x0 has the variance {variance[t]:.4g} at step {t}, and it is {error[t]:.4g}",
                "give Var(x0 | x_t), no deviation and no logarithm, from statistics that are means over pixels",
            )


def leaves_its_input(sigma: Sigma) -> None:
    """A learned one does not write into the bounds and the output that it is shown."""
    if not sigma.learned:
        raise NotAsked("it is not learned")
    import torch

    low, high = _of_images(sigma)
    given = low, high, torch.linspace(-1, 1, 24 * len(low)).reshape(-1, 2, 3, 4)
    kept = [v.clone() for v in given]
    contract.network_log_variance(sigma, *given)
    if not all(torch.equal(a, b) for a, b in zip(given, kept, strict=True)):
        fail(f"sigma '{sigma.name}': from_network writes into its input", "use out * a instead of out.mul_(a)")


def no_leak_across_the_batch(sigma: Sigma) -> None:
    """A learned variance of one image does not depend on the others of the batch."""
    if not sigma.learned:
        raise NotAsked("it is not learned")
    import torch

    low, high = _of_images(sigma)
    out = torch.linspace(-1, 1, 24 * len(low)).reshape(-1, 2, 3, 4)
    whole = contract.network_log_variance(sigma, low, high, out)
    # The first steps: at the others both bounds are nearly one, and hide what the network says.
    part = contract.network_log_variance(sigma, low[:2], high[:2], out[:2])
    if not torch.allclose(whole[:2], part, rtol=1e-4, atol=1e-4):
        fail(f"sigma '{sigma.name}' leaks across the batch", "take no mean over the batch in from_network")


def last_variance(sigma: Sigma) -> None:
    """The most that the last noisy step adds is a number above 0."""
    for levels in (2, 17, 256):
        contract.largest_last_variance(sigma, levels)


def keeps_chains_apart(sigma: Sigma) -> None:
    """Two chains of one length have different variances, whichever was asked about first."""
    one, other = (contract.log_bounds(sigma, chain(schedule, 61)) for schedule in ("linear", "cosine"))
    varies = any(bool(np.ptp(bound)) for bound in one)  # bounds that are two numbers are the same for every chain
    if varies and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)):
        fail(
            f"sigma '{sigma.name}' gives for one chain of 61 steps the variances of another",
            "compute them from tables, and keep nothing between two calls",
        )


def leaves_the_process_alone(sigma: Sigma) -> None:
    """It seeds no global generator, and changes no setting of the process."""
    tables = chain("linear", 50)
    leaves_alone(sigma, lambda: sigma.log_bounds(tables))


def _of_images(sigma: Sigma) -> tuple[Tensor, Tensor]:
    """The bounds of ten steps, as a network's output is met by them."""
    import torch

    low, high = contract.log_bounds(sigma, chain("linear", 1000))
    return tuple(torch.from_numpy(v[1::100]).float().reshape(-1, 1, 1, 1) for v in (low, high))  # type: ignore[return-value] # two


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


CHECKS = named(
    log_bounds,
    within_bounds,
    from_network,
    leaves_its_input,
    no_leak_across_the_batch,
    x0_variance,
    last_variance,
    keeps_chains_apart,
    leaves_the_process_alone,
)
