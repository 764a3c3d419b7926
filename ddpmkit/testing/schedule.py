"""What is asked of a schedule."""

from __future__ import annotations

import numpy as np

from ddpmkit.diffusion.tables_for import Array, tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Schedule
from ddpmkit.plugin.tables import Tables
from ddpmkit.testing.check import fail, named
from ddpmkit.testing.process import leaves_alone, put_back

LENGTHS = (1000, 50, 2)
WOBBLE = 1e-6  # of the largest beta, far above rounding


def steps(schedule: Schedule) -> None:
    """It gives finite steps, each adding noise, the same when asked again, at every length that it does not refuse."""
    _tables(schedule)


def does_not_turn(schedule: Schedule) -> None:
    """Its betas do not rise and then fall again, unless the steps of its log SNR do not either, as those of EDM."""
    for tables in _tables(schedule):
        if not tables.variance_preserving:
            continue
        falls = _falls_again(tables.betas)
        log_snr = np.log(tables.snr[tables.snr > 0])  # a chain may end without any signal
        if falls is not None and _falls_again(-np.diff(log_snr)) is not None:
            fail(
                f"schedule '{schedule.name}' at T={tables.T} rises and falls: beta is {tables.betas[falls - 1]:.6g} at "
                f"step {falls - 1} and {tables.betas[falls]:.6g} at step {falls}",
                "betas or the steps of log SNR may rise, or fall and then rise; look for a wave, or a wrong order",
            )


def _falls_again(values: Array) -> int | None:
    """The first place at which values fall after they rose, by more than rounding; None where there is none."""
    change = np.diff(values)
    rising = np.maximum.accumulate(change > WOBBLE * values.max())
    falls = rising & (change < -WOBBLE * values.max())
    return int(np.argmax(falls)) + 1 if falls.any() else None


def least_noisy_first(schedule: Schedule) -> None:
    """Index 0 is the least noisy step: the first adds no more noise than the last."""
    for tables in _tables(schedule):
        first, last = tables.b2[0] / tables.a[0] ** 2, tables.b2[-1] / max(tables.a[-1] ** 2, 1e-300)
        if tables.variance_preserving and first > last * (1 + WOBBLE):
            fail(
                f"schedule '{schedule.name}' at T={tables.T}: the first step adds more noise than the last, "
                f"{tables.b2[0]:.6g} against {tables.b2[-1]:.6g}",
                "index 0 is the papers' t=1, the least noisy step; give betas[::-1]",
            )


def ends_in_its_prior(schedule: Schedule) -> None:
    """The variance of x_T, for data of a variance from 0 to 1, is the one of its prior."""
    for tables in _tables(schedule):
        low, high = tables.noise2[-1], tables.noise2[-1] + tables.signal[-1] ** 2
        if not 0.95 * low <= tables.prior_variance <= 1.05 * high:
            fail(
                f"schedule '{schedule.name}' at T={tables.T}: the variance of x_T is {high:.6g}, and that of its prior "
                f"{tables.prior_variance:.6g}",
                "give prior_variance(T), the variance of the last x for data of unit variance",
            )


def leaves_the_process_alone(schedule: Schedule) -> None:
    """It seeds no global generator, and changes no setting of the process."""
    with put_back():
        T = _tables(schedule)[-1].T
    leaves_alone(schedule, lambda: (schedule.steps(T), schedule.prior_variance(T)))


def _tables(schedule: Schedule) -> list[Tables]:
    """The chains of all lengths that the schedule itself does not refuse.

    Raises:
        DdpmkitError: when one breaks the contract, or none is left.
    """
    found, refusals = [], []
    for T in LENGTHS:
        try:
            schedule.steps(T)  # outside of the contract, to tell its own refusal from ours
        except (DdpmkitError, ValueError) as err:
            refusals.append(f"T={T}: {err}")
            continue
        found.append(tables_for(schedule, T))
    if not found:
        fail(f"schedule '{schedule.name}' takes no length: {refusals[0]}", "give steps for T=1000, T=50 or T=2")
    return found


CHECKS = named(steps, does_not_turn, least_noisy_first, ends_in_its_prior, leaves_the_process_alone)
