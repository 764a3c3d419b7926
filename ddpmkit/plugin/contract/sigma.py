"""What a sigma must give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.contract.answers import (
    a_number,
    checked_tensor,
    exact,
    not_negative,
    numbers,
    own_copy,
    pair_of,
    refuse,
    twice,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ddpmkit.plugin.interfaces import Array, Sigma
    from ddpmkit.plugin.tables import Tables

FIRST_IS_ZERO = "look at that step; beta-tilde is 0 at step 0, where sigma beta-tilde takes its value of step 1"
LOG_LIMIT = 700.0  # of a log-variance: its exponential must be a float64 above 0


def log_bounds(sigma: Sigma, tables: Tables) -> tuple[Array, Array]:
    """Return a sigma's (low, high) log-variances, each float64 (T,), low at most high.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    import numpy as np

    subject = f"sigma '{sigma.name}'"
    if sigma.learned and sigma.fitted:
        refuse(sigma, f"{subject} says that it is learned and that it is fitted; it is one of the two")

    def ask() -> tuple[Array, ...]:
        with blame("sigma", sigma.name):
            pair = sigma.log_bounds(own_copy(tables))
        return pair_of(subject, ("low log-variances", "high log-variances"), pair, (tables.T,), infinite=FIRST_IS_ZERO)

    low, high = twice(subject, "other log-variances", ask)
    for values in (low, high):
        if (np.abs(values) > LOG_LIMIT).any():
            t = int(np.argmax(np.abs(values) > LOG_LIMIT))
            refuse(
                sigma, f"{subject} gives a log-variance of {exact(values[t])} at step {t}, and e to that is no number"
            )
    if (low > high).any():
        t = int(np.argmax(low > high))
        refuse(
            sigma, f"{subject} gives a low log-variance of {exact(low[t])} above the high {exact(high[t])} at step {t}"
        )
    return low, high


def fixed_log_variance(sigma: Sigma, tables: Tables) -> Array:
    """Return log sigma_t^2, (T,), of a sigma whose bounds coincide.

    Raises:
        DdpmkitError: as :func:`log_bounds`, and when the sigma gives a range, as learned and fitted ones do.
    """
    low, high = log_bounds(sigma, tables)
    if (low != high).any():
        if sigma.learned:
            raise DdpmkitError(
                f"sigma '{sigma.name}' is learned: its variance is the network's own, and no table has it",
                "a fixed one, as beta-tilde; or predict with (x0hat, log sigma^2), as in ddpmkit.likelihood.draw",
            )
        if sigma.fitted:
            raise DdpmkitError(
                f"sigma '{sigma.name}' is fitted to a trained network, and no table has it before",
                f"a fixed one, as beta-tilde; a study fits it: ddpmkit ablate --sigmas {sigma.name}",
            )
        raise DdpmkitError(
            f"sigma '{sigma.name}' gives a range of variances, and is neither learned nor fitted",
            "a sigma whose bounds differ says learned = True or fitted = True",
        )
    return low


def x0_variance(sigma: Sigma, tables: Tables, statistics: Mapping[str, Array]) -> Array:
    """Return a fitted sigma's Var(x_0 | x_t) per dimension over the full chain, float64 (T,), at least 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    import numpy as np

    subject = f"sigma '{sigma.name}'"

    def ask() -> tuple[Array, ...]:
        own = {key: np.array(value) for key, value in statistics.items()}
        with blame("sigma", sigma.name):
            variances = sigma.x0_variance(own_copy(tables), own)
        return (numbers(subject, "variances of x0", variances, (tables.T,)),)

    (variances,) = twice(subject, "other variances of x0", ask)
    return not_negative(sigma, subject, "variance of x0", variances)


def largest_last_variance(sigma: Sigma, levels: int) -> float:
    """Return the most that the last noisy step of a walk may add, above 0; it may be infinite.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    subject = f"sigma '{sigma.name}'"

    def ask() -> Any:
        return sigma.largest_last_variance(levels)

    return a_number(subject, "largest last variance", "sigma", sigma, ask, above=True, infinite=True)


def network_log_variance(sigma: Sigma, low: Tensor, high: Tensor, out: Tensor) -> Tensor:
    """Return a learned sigma's log-variance, like ``out`` (B, C, H, W) in shape and device, and floating.

    Raises:
        DdpmkitError: when it gives something else.
    """
    log_variance = sigma.from_network(low, high, out)
    checked_tensor(sigma, f"sigma '{sigma.name}': from_network", log_variance, tuple(out.shape), out.device)
    return log_variance
