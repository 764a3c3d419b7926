"""What is asked of a weighting."""

from __future__ import annotations

import numpy as np

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Weighting
from ddpmkit.plugin.registry import Registry
from ddpmkit.testing.chains import chains
from ddpmkit.testing.check import named


def weights(weighting: Weighting) -> None:
    """Its weights are finite, not below 0, not all 0, one a step, and the same when asked again."""
    for tables in chains().values():
        contract.checked_weights(weighting, tables, np.log(tables.b2))


def declarations(weighting: Weighting) -> None:
    """What it says of itself is so: that it uses sigma, that it is the bound, what its weights are factors on."""
    sigma = Registry(installed=False).build("sigma", "learned-range")
    for tables in chains().values():
        contract.declared_weights(weighting, sigma, tables, np.log(tables.b2))


def vlb_share(weighting: Weighting) -> None:
    """Its share of the bound is a finite number from 0."""
    for tables in chains().values():
        contract.vlb_share(weighting, tables.T)


CHECKS = named(weights, declarations, vlb_share)
