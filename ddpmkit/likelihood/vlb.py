"""The variational bound in bits/dim from draws alone: no network, any fixed sigma, any decoder; layer two.

NLL <= [ L_T + sum_{t=2..T} L_{t-1} + L_0 ] / (d ln 2), Ho et al. 2020, eq. 5. Two errors are kept apart: the
Monte-Carlo error given the images, and the sampling error of the test set itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ddpmkit.diffusion.bound_terms import (
    Decoder,
    checked_decoder,
    decoder_terms,
    middle_constant,
    middle_factor,
    prior_kl,
)
from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood import checks
from ddpmkit.likelihood.control_variates import BETWEEN, coefficients
from ddpmkit.likelihood.draws import Draws, Plain, Sampled, Swept, blocks
from ddpmkit.likelihood.evidence import Evidence, step_variance


@dataclass(frozen=True)
class Terms:
    """The parts of a bound, bits/dim: ``prior`` L_T, ``middle`` the sum of L_{t-1} over t=2..T, ``decoder`` L_0."""

    prior: float
    middle: float
    decoder: float


@dataclass(frozen=True, eq=False)
class Curve:
    """Bits/dim per step, averaged over blocks of steps; t is counted from 1 as in the papers, t=1 is the decoder.

    Attributes:
        first: first step of each block, int64 (blocks,).
        last: last step of each block.
        bits: mean of L_{t-1} over the block's steps, bits/dim; times the number of steps it sums to the bound less L_T.
        standard_error: Monte-Carlo standard error of ``bits``. Both are NaN for a block that no draw fell into.
    """

    first: Plain
    last: Plain
    bits: Array
    standard_error: Array


@dataclass(frozen=True, eq=False)
class Bound:
    """A bound on the NLL of the images, bits/dim.

    Attributes:
        total: L_T + middle + L_0.
        standard_error: Monte-Carlo standard error, given the images; NaN where one draw of one image shows no spread.
        test_set_error: standard error that stems from the choice of the images, sd_i(bound of image i) / sqrt(N);
            NaN where the draws are too few to tell the images apart.
        terms: the three parts.
        rate: L_T + middle, Ho et al. 2020, section 4.3.
        distortion: L_0.
        rmse: root mean squared error of x0hat at t=1, in grey levels.
        curve: bits/dim per step.
        evaluations: network evaluations behind it.
        evidence: what differences with other bounds are taken from.
    """

    total: float
    standard_error: float
    test_set_error: float
    terms: Terms
    rate: float
    distortion: float
    rmse: float
    curve: Curve
    evaluations: int
    evidence: Evidence

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Monte-Carlo interval: Student t, degrees of freedom as the error has them; NaN without an error."""
        half = self.evidence.quantile() * self.standard_error
        return self.total - half, self.total + half


@dataclass(frozen=True)
class Difference:
    """The difference of two bounds, first less second, bits/dim, with errors of its own."""

    total: float
    standard_error: float
    test_set_error: float


def bound(
    draws: Draws,
    tables: Tables,
    log_sigma2: Array | None = None,
    decoder_log_variance: float | None = None,
    decoder: Decoder = "cdf",
    *,
    levels: int,
    clip: bool = True,
    control: bool = True,
) -> Bound:
    """Return the bound of the images that were drawn.

    Args:
        draws: From :func:`ddpmkit.likelihood.ask.draw`, over the same tables.
        tables: The chain; strided or full.
        log_sigma2: Log reverse variances of a fixed sigma, (T,), entry 0 unused; None takes the network's own.
        decoder_log_variance: Log-variance of p(x_0 | x_1); None takes the network's own.
        decoder: What stands for p(x_0 | x_1); see :func:`ddpmkit.diffusion.bound_terms.decoder_terms`.
        levels: Number K of grey levels.
        clip: Whether x0hat is clipped to [-1, 1], which is a valid model mean.
        control: Whether control variates are used; they change the error, not the expectation.

    Raises:
        DdpmkitError: when the draws are of another chain, or have no variances of their own where these are asked for;
            when a name, a shape or the levels do not fit.
    """
    if draws.T != tables.T:
        raise DdpmkitError(f"the draws are of a chain of {draws.T} steps, the tables of one of {tables.T}")
    checked_decoder(decoder)
    checks.whole("levels", levels, 2, "256 for 8-bit images")
    if log_sigma2 is not None and np.shape(log_sigma2) != (tables.T,):
        raise DdpmkitError(
            f"log_sigma2 has shape {np.shape(log_sigma2)}, and the chain {tables.T} steps", "one log-variance a step"
        )
    own = draws.decoder_log_variance
    if own is None and (log_sigma2 is None or decoder_log_variance is None):
        raise DdpmkitError("the network gave no variances of its own", "give log_sigma2 and decoder_log_variance")
    unit = draws.dims * math.log(2)
    x0 = torch.from_numpy(draws.x0)
    prior = prior_kl(tables, x0).numpy() / unit
    shared = 0.0 if decoder_log_variance is None else decoder_log_variance
    variances: list[float | torch.Tensor] = [shared] * len(draws.decoder_mean)
    if decoder_log_variance is None and own is not None:
        variances = [torch.from_numpy(row).double() for row in own]
    decoder_bits = np.empty(draws.decoder_mean.shape[:2])
    for d, row in enumerate(draws.decoder_mean):  # one draw at a time, so that memory stays small
        mean = torch.from_numpy(row).double()
        mean = mean.clamp(-1, 1) if clip else mean
        decoder_bits[d] = decoder_terms(decoder, x0.double(), mean, variances[d], levels).sum(1).numpy() / unit

    if log_sigma2 is None:
        factor, constant = np.ones(tables.T), np.zeros(tables.T)
    else:
        factor, constant = middle_factor(tables, log_sigma2), draws.dims * middle_constant(tables, log_sigma2)
    if isinstance(draws.middle, Sampled):
        evidence, per_step = _sampled(
            draws.middle, prior, decoder_bits, factor / unit, constant / unit, log_sigma2, clip, control
        )
    else:
        evidence, per_step = _swept(draws.middle, prior, decoder_bits, factor / unit, constant / unit, log_sigma2, clip)

    at_one = float(decoder_bits.mean()), math.sqrt(evidence.decoder_variance())
    hat = draws.decoder_mean.clip(-1, 1) if clip else draws.decoder_mean
    rmse = math.sqrt(float(np.mean(np.square(hat.astype(np.float64) - draws.x0)))) * (levels - 1) / 2
    terms = Terms(float(prior.mean()), evidence.middle(), at_one[0])
    return Bound(
        terms.prior + terms.middle + terms.decoder,
        evidence.standard_error(),
        evidence.test_set_error(),
        terms,
        terms.prior + terms.middle,
        terms.decoder,
        rmse,
        _curve(tables.T, at_one, *per_step),
        draws.evaluations,
        evidence,
    )


def paired(a: Bound, b: Bound) -> Difference:
    """Return a - b with the error of the difference itself.

    Two sigmas from the same draws are paired draw by draw at no further evaluation; so are two networks asked with the
    same seed, budget and images, and sweeps that were repeated because images are few. Other sweeps of two networks
    keep no draws: their Monte-Carlo errors are taken as independent, which is too much rather than too little where
    they go together, and their test-set error holds that noise too, as an upper bound.

    Raises:
        DdpmkitError: when the two are not of the same images and draws.
    """
    x, y = a.evidence, b.evidence
    alike = x.decoder.shape == y.decoder.shape and (x.moments is None) == (y.moments is None)
    if not alike or not np.array_equal(x.image, y.image):
        raise DdpmkitError(
            "the two bounds were not drawn alike", "use the same images, seed and number of evaluations for both"
        )
    same = x.moments is y.moments
    delta = Evidence(
        x.prior - y.prior,
        x.decoder - y.decoder,
        x.values - y.values,
        x.own - y.own,
        x.image,
        x.replicates,
        x.totals - y.totals,
        x.weights - y.weights,
        x.moments,
    )
    if same or x.replicates > 1:
        return Difference(delta.total(), delta.standard_error(), delta.test_set_error())
    variance = x.middle_variance() + y.middle_variance() + delta.decoder_variance()
    return Difference(delta.total(), math.sqrt(variance), delta.test_set_error())


def _sampled(
    s: Sampled,
    prior: Array,
    decoder_bits: Array,
    factor: Array,
    constant: Array,
    log_sigma2: Array | None,
    clip: bool,
    control: bool,
) -> tuple[Evidence, tuple[Array, Array]]:
    """Weigh the draws; also the sum over each block of steps and its error."""
    values, pilot = (s.errors, s.pilot_errors) if log_sigma2 is not None else (s.terms, s.pilot_terms)
    if values is None or pilot is None:
        raise DdpmkitError("the network gave no variances of its own", "give log_sigma2")
    T, x = len(s.proposal), values.of(clip)
    adjust = np.zeros((len(x), s.controls.shape[1]))
    if control:
        adjust = coefficients(s.pilot_t, pilot.of(clip), s.pilot_controls, s.scales)[s.t] * s.controls
    within = adjust[:, :BETWEEN].sum(1)

    def weigh(values: Array) -> Array:
        return (factor[s.t] * values + constant[s.t]) / s.proposal[s.t]

    z, own, nothing = weigh(x - adjust.sum(1)), weigh(x - within), np.zeros(0)
    evidence = Evidence(prior, decoder_bits, z, own, s.image, s.replicates, nothing, nothing, None)
    block = blocks(T)
    size = len(z) // s.replicates
    where = np.repeat(np.arange(s.replicates), size) * (block.max() + 1) + block[s.t]
    sums = np.bincount(where, z, minlength=s.replicates * (block.max() + 1)).reshape(s.replicates, -1) / size
    bits, error = sums.mean(0), sums.std(0, ddof=1) / math.sqrt(s.replicates)
    empty = np.bincount(block[s.t], minlength=block.max() + 1) == 0
    bits[empty], error[empty] = np.nan, np.nan
    return evidence, (bits, error)


def _swept(
    s: Swept, prior: Array, decoder_bits: Array, factor: Array, constant: Array, log_sigma2: Array | None, clip: bool
) -> tuple[Evidence, tuple[Array, Array]]:
    """Sum the sweep; the total is exact, each image's own is exact but for the shape of sigma within a block."""
    errors = s.clipped if clip else s.unclipped
    terms = s.terms_clipped if clip else s.terms_unclipped
    m = errors if log_sigma2 is not None else terms
    if m is None:
        raise DdpmkitError("the network gave no variances of its own", "give log_sigma2")
    n = len(m.image)  # every repeat of an image is one
    reference = s.reference if log_sigma2 is not None else np.ones(len(factor))
    steps = factor * m.total / n + constant
    steps[0] = 0.0
    block: Array = np.bincount(s.block[1:], steps[1:], minlength=s.block.max() + 1).astype(np.float64)
    mine, theirs = (np.bincount(s.block[1:], (w * m.total)[1:], minlength=len(block)) for w in (factor, reference))
    totals = m.image @ (mine / np.where(theirs == 0, 1.0, theirs)) + constant[1:].sum()
    weights = factor.copy()
    weights[0] = 0.0
    none = np.zeros(0)
    evidence = Evidence(prior, decoder_bits, none, none, np.zeros(0, np.int64), s.repeats, totals, weights, m)
    noise = np.bincount(s.block, weights**2 * step_variance(m, n) / n, minlength=len(block))
    return evidence, (block, np.sqrt(noise))


def _curve(T: int, at_one: tuple[float, float], sums: Array, errors: Array) -> Curve:
    """Divide the sum over each block by the number of its steps; block 0 is t=1."""
    block = blocks(T)
    count = np.bincount(block)
    last = np.cumsum(count)
    bits, error = sums.copy(), errors.copy()
    bits[0], error[0] = at_one
    return Curve(last - count + 1, last, bits / count, error / count)
