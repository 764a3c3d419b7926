"""One call for a trained network under one fixed sigma: draw, then bound, clipped and as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ddpmkit.diffusion.tables import Array, Tables
from ddpmkit.evaluation.nll_bound import Bound, bound
from ddpmkit.evaluation.nll_control import LinearGaussian
from ddpmkit.evaluation.nll_draw import DECODER_DRAWS, draw
from ddpmkit.evaluation.nll_proposal import PILOT_IMAGES, pilot_grid


@dataclass(frozen=True)
class Reported:
    """A bound as a record keeps it, bits/dim: total, Monte-Carlo standard error given the images, and the terms."""

    total: float
    standard_error: float
    prior: float
    middle: float
    decoder: float

    @classmethod
    def of(cls, found: Bound) -> Reported:
        """Take the plain numbers of a bound."""
        terms = found.terms
        return cls(found.total, found.standard_error, terms.prior, terms.middle, terms.decoder)


@dataclass(frozen=True, eq=False)
class Estimate:
    """What :func:`estimate` returns.

    Attributes:
        clipped: the bound with x0hat clipped to [-1, 1]; what studies report.
        unclipped: the bound of the network as it is, from the same passes.
        evaluations: network evaluations, in images.
        draws: the raw material as named arrays, to be stored; see :meth:`ddpmkit.evaluation.nll_draws.Draws.arrays`.
    """

    clipped: Reported
    unclipped: Reported
    evaluations: int
    draws: dict[str, np.ndarray[Any, Any]]


def estimate(
    predict_x0: Callable[..., Tensor],
    tables: Tables,
    log_sigma2: Array,
    decoder_log_variance: float,
    *,
    images: Tensor,
    pilot: Tensor,
    levels: int,
    evaluations: int,
    seed: int | str,
    micro_batch: int,
    linear: LinearGaussian | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Estimate:
    """Estimate the bound of ``images`` under a fixed sigma.

    Args:
        predict_x0: ``predict_x0(xt, t)`` with t int64 (B,); not clipped.
        tables: The chain.
        log_sigma2: Log reverse variances, (T,); entry 0 is not used.
        decoder_log_variance: Log-variance of p(x_0 | x_1).
        images: Float32 pixels (N, C, H, W) in [-1, 1], exactly on the grey levels.
        pilot: Other images, for the proposal and the controls' factors alone.
        levels: Number K of grey levels.
        evaluations: Budget for the middle sum, in network evaluations; rounded up to the replicates.
        seed: Keys of all noise and shifts.
        micro_batch: Images per network pass, always; the last pass is padded.
        linear: Fitted to the training images, for the control variate.
        on_progress: Told the finished fraction.
        should_stop: Asked before every pass.

    Raises:
        Diverged: when the network gives a value that is not finite; the step and the image are named.
        Interrupted: when asked to stop.
    """
    draws = draw(
        lambda xt, t: (predict_x0(xt, t), None),
        tables,
        images=images,
        pilot=pilot,
        levels=levels,
        evaluations=len(pilot_grid(tables.T)) * PILOT_IMAGES + DECODER_DRAWS * len(images) + max(evaluations, 1),
        seed=seed,
        micro_batch=micro_batch,
        linear=linear,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    clipped, unclipped = (
        Reported.of(bound(draws, tables, log_sigma2, decoder_log_variance, levels=levels, clip=clip))
        for clip in (True, False)
    )
    return Estimate(clipped, unclipped, draws.evaluations, draws.arrays())
