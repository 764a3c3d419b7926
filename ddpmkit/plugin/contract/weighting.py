"""What a weighting must give, and declare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.contract.answers import a_number, not_negative, numbers, own_copy, refuse, shown, twice

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Array, Sigma, Weighting
    from ddpmkit.plugin.tables import Tables


def checked_weights(weighting: Weighting, tables: Tables, log_sigma2: Array) -> Array:
    """Return a weighting's factors, float64 (T,), at least 0 and not all of them 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    import numpy as np

    subject = f"weighting '{weighting.name}'"

    def ask() -> tuple[Array, ...]:
        with blame("weighting", weighting.name):
            factors = weighting.weights(own_copy(tables), np.array(log_sigma2))
        return (numbers(subject, "weights", factors, (tables.T,)),)

    (factors,) = twice(subject, "other weights", ask)
    weights = not_negative(weighting, subject, "weight", factors)
    if not weights.any():
        refuse(weighting, f"{subject} gives only zeros")
    return weights


def vlb_share(weighting: Weighting, T: int) -> float:
    """Return a weighting's factor on L_{t-1}, at least 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    subject = f"weighting '{weighting.name}'"
    return a_number(subject, "share of the bound", "weighting", weighting, lambda: weighting.vlb_share(T))


def declared_weights(weighting: Weighting, sigma: Sigma, tables: Tables, log_sigma2: Array) -> Array:
    """Return the weights, if the declarations beside them are true: else an id would hold less than training sees.

    Raises:
        DdpmkitError: with what it should say.
    """
    import numpy as np

    subject = f"weighting '{weighting.name}'"
    weights = checked_weights(weighting, tables, log_sigma2)
    if weighting.space not in ("x0", "prediction"):
        refuse(weighting, f"{subject}: space is 'x0' or 'prediction', not {shown(weighting.space)}")
    sees = not np.array_equal(weights, checked_weights(weighting, tables, log_sigma2 + 1))
    if (sees or weighting.is_bound or weighting.decoder_first) and not weighting.uses_sigma:
        refuse(weighting, f"{subject} depends on sigma and does not say uses_sigma = True")
    bound = tables.bound_factor(log_sigma2)
    if weighting.is_bound and sigma.learned and not np.allclose(weights, bound, rtol=1e-9):
        raise DdpmkitError(
            f"{subject} says it is the bound and weighs its steps otherwise: a learned sigma would take the bound in "
            "full",
            "leave out is_bound = True",
        )
    return weights
