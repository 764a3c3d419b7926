"""L_T, what is lost because the chain does not quite reach its prior, and the KL that it is made of; no torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from ddpmkit.diffusion.tables_for import Array, Tables

Numbers = TypeVar("Numbers", float, "Array", "Tensor")


def bits_per_dim(nats: float, dims: int) -> float:
    """Return nats / (dims ln 2)."""
    return nats / (dims * math.log(2))


def kl(ratio: Numbers, log_ratio: Numbers, squared: Numbers | float = 0.0) -> Numbers:
    """KL(N(mu_1, s_1) || N(mu_2, s_2)) of two normal variables, nats: 1/2 [ r - 1 - ln r + squared ].

    r = s_1 / s_2 is the ratio of their variances, squared = (mu_1 - mu_2)^2 / s_2. Shapes that broadcast.
    """
    return 0.5 * (ratio - 1 - log_ratio + squared)


def prior_bits(tables: Tables, second_moment: float = 1.0) -> float:
    """L_T in bits/dim for data of that E x0^2: what is lost because the chain does not quite reach its prior."""
    return bits_per_dim(prior_nats(tables, second_moment, 1), 1)


def prior_nats(tables: Tables, squares: Numbers, dims: int) -> Numbers:
    """Per dimension 1/2 [ (m_T^2 x0^2 + S_T^2) / P - 1 - ln(S_T^2 / P) ], P the prior's variance; summed, nats."""
    prior, ratio = tables.prior_variance, float(tables.noise2[-1]) / tables.prior_variance
    return 0.5 * (float(tables.signal[-1]) ** 2 * squares / prior) + dims * kl(ratio, math.log(ratio))
