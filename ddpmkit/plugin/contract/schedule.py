"""What a schedule must give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.contract.answers import a_number, exact, numbers, pair_of, refuse, twice
from ddpmkit.plugin.interfaces import Schedule

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Array


def steps(schedule: Schedule, T: int) -> tuple[Array, Array]:
    """Return a schedule's (a_t, b_t^2), each float64 (T,): b_t^2 above 0, a_t at least 0, and 0 at the last step alone.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again; the step and its value are
            named.
    """
    import numpy as np

    subject = f"schedule '{schedule.name}' at T={T}"

    what = "steps"
    if getattr(type(schedule), "steps", None) is Schedule.steps:
        what = "betas"
        with blame("schedule", schedule.name):
            betas = schedule.betas(T)
        numbers(subject, what, betas, (T,))

    def ask() -> tuple[Array, ...]:
        with blame("schedule", schedule.name):
            pair = schedule.steps(T)
        return pair_of(subject, ("factors a_t", "variances b_t^2"), pair, (T,))

    a, b2 = twice(subject, f"other {what}", ask)
    silent, last = a == 0, np.arange(T) == T - 1
    if (b2 <= 0).any():
        t = int(np.argmax(b2 <= 0))
        refuse(schedule, f"{subject}: step {t} adds no noise, its variance is {exact(b2[t])}")
    if (a < 0).any():
        t = int(np.argmax(a < 0))
        refuse(schedule, f"{subject}: step {t} flips the sign, its factor is {exact(a[t])}")
    if (silent & (b2 > 1)).any():
        t = int(np.argmax(silent & (b2 > 1)))
        refuse(schedule, f"{subject}: beta at step {t} is {exact(b2[t])}, and none may be above 1")
    if (silent & ~last).any():
        t = int(np.argmax(silent & ~last))
        refuse(schedule, f"{subject}: beta at step {t} is {exact(b2[t])} and leaves no signal; only the last may")
    return a, b2


def prior_variance(schedule: Schedule, T: int) -> float:
    """Return the variance of a schedule's prior p(x_T), a finite number above 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    subject = f"schedule '{schedule.name}' at T={T}"
    return a_number(subject, "prior variance", "schedule", schedule, lambda: schedule.prior_variance(T), above=True)
