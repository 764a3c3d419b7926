"""What is asked of a weighting."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Weighting
from ddpmkit.plugin.registry import Registry
from ddpmkit.plugin.tables import Tables
from ddpmkit.testing.chains import chain, chains
from ddpmkit.testing.check import NotAsked, fail, named, unless_refused
from ddpmkit.testing.process import leaves_alone


def weights(weighting: Weighting) -> None:
    """Its weights are finite, not below 0, not all 0, one a step, and the same when asked again."""
    for tables in _chains(weighting):
        contract.checked_weights(weighting, tables, np.log(tables.b2))


def declarations(weighting: Weighting) -> None:
    """What it says of itself is so: that it uses sigma, that it is the bound, what its weights are factors on."""
    sigma = Registry(installed=False).build("sigma", "learned-range")
    for tables in chains().values():
        contract.declared_weights(weighting, sigma, tables, np.log(tables.b2))
    # Where the loss holds the variance in another way, or its own scale, it enters the training all the same.
    if weighting.uses_sigma and not (weighting.is_bound or weighting.decoder_first or weighting.vlb_share(50)):
        tables, other = chain("linear", 1000), chain("cosine", 50)
        if not any(_sees_sigma(weighting, one) for one in (tables, other)):
            fail(
                f"weighting '{weighting.name}' says uses_sigma = True, and its weights are the same for every sigma",
                "leave out uses_sigma = True, or each sigma costs a training of its own",
            )


def vlb_share(weighting: Weighting) -> None:
    """Its share of the bound is a finite number from 0."""
    for tables in chains().values():
        contract.vlb_share(weighting, tables.T)


def leaves_its_input(weighting: Weighting) -> None:
    """It does not write into the variances that it is shown."""
    for tables in chains().values():
        log_sigma2 = np.log(tables.b2)
        kept = log_sigma2.copy()
        weighting.weights(tables, log_sigma2)
        if not np.array_equal(kept, log_sigma2):
            fail(f"weighting '{weighting.name}' writes into log_sigma2", "compute a new array")


def keeps_chains_apart(weighting: Weighting) -> None:
    """Its weights for a chain do not depend on which other chain of that length it was asked about before."""

    # One that remembers by T gives the first chain's for the second. So does one that looks at T alone, but then the
    # chain that came first makes no difference between T = 61 and T = 62.
    def ask(schedule: str, T: int) -> np.ndarray:
        tables = chain(schedule, T)
        return contract.checked_weights(weighting, tables, np.log(tables.b2))

    linear, cosine = (ask(schedule, 61) for schedule in ("linear", "cosine"))
    turned = np.interp(np.linspace(0, 1, 61), np.linspace(0, 1, 62), ask("cosine", 62))
    # The median: weights may be a step, which lies between two others at another length.
    if np.array_equal(linear, cosine) and np.median(np.abs(np.log1p(linear) - np.log1p(turned))) > 0.1:
        fail(
            f"weighting '{weighting.name}' gives for one chain of 61 steps the weights of another",
            "keep nothing between two calls, or by all of the tables and not by T",
        )


def leaves_the_process_alone(weighting: Weighting) -> None:
    """It seeds no global generator, and changes no setting of the process."""
    tables = chain("linear", 50)
    leaves_alone(weighting, lambda: weighting.weights(tables, np.log(tables.b2)))


def _chains(weighting: Weighting) -> Iterator[Tables]:
    """What every weighting must take, and what it may refuse: no signal at the end, and a variance that grows."""
    yield from chains().values()
    for schedule in ("zero-snr", "random-walk"):
        tables = chain(schedule, 50)
        if _takes(weighting, tables):
            yield tables


def _takes(weighting: Weighting, tables: Tables) -> bool:
    try:
        unless_refused(lambda: weighting.weights(tables, np.log(tables.b2)))
    except NotAsked:
        return False
    return True


def _sees_sigma(weighting: Weighting, tables: Tables) -> bool:
    log_sigma2 = np.log(tables.b2)
    return not np.array_equal(weighting.weights(tables, log_sigma2), weighting.weights(tables, log_sigma2 + 1))


CHECKS = named(weights, declarations, vlb_share, leaves_its_input, keeps_chains_apart, leaves_the_process_alone)
