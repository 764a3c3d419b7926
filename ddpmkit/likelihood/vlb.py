"""The variational bound in bits/dim from draws alone: no network, any fixed sigma, any decoder; layer two.

NLL <= [ L_T + sum_{t=2..T} L_{t-1} + L_0 ] / (d ln 2), Ho et al. 2020, eq. 5. Two errors are kept apart: the
Monte-Carlo error given the images, and the sampling error of the test set itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ddpmkit.diffusion.likelihood import Decoder, decoder_terms, middle_constant, middle_factor, prior_kl
from ddpmkit.diffusion.tables import Array, Tables
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood.control_variates import BETWEEN, coefficients
from ddpmkit.likelihood.draws import Draws, Moments, Plain, Sampled, Swept, blocks


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
        test_set_error: standard error that stems from the choice of the images, sd_i(bound of image i) / sqrt(N).
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


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a bound is the mean of, bits/dim; it subtracts draw by draw.

    Attributes:
        prior: L_T of each image, (N,).
        decoder: L_0 of each draw of each image, (draws, N).
        values: contribution of each draw to the middle sum, its mean being that sum, (n,); empty for a full sweep.
        own: the same without the control that evens out the images, for what differs between them is asked of it.
        image: the image of each draw, (n,).
        replicates: R; of a full sweep, how often it was repeated.
        totals: middle sum of each image in a full sweep, (R N,), one repeat after another; empty otherwise.
        weights: factor on the value of each step in a full sweep, (T,).
        moments: the sums that the factors stand on.
    """

    prior: Array
    decoder: Array
    values: Array
    own: Array
    image: Plain
    replicates: int
    totals: Array
    weights: Array
    moments: Moments | None

    def quantile(self) -> float:
        """The 97.5 % quantile of the standardised error: Student t with :meth:`degrees_of_freedom`."""
        from scipy import stats

        return float(stats.t.ppf(0.975, self.degrees_of_freedom()))

    def degrees_of_freedom(self) -> float:
        """Those of the standard error, from its parts v_j with nu_j degrees of freedom each.

        nu = (sum v_j)^2 / (sum v_j^2 / (nu_j + 2)) - 2 (Welch 1947, Biometrika 34:28-35; what Satterthwaite 1946
        writes with the true variances, put in by estimates that have few degrees of freedom). At least the smallest
        nu_j, and at most those of the middle sum, since the shares of the parts are themselves estimates.
        """
        middle = self._middle_parts()
        v, nu = (np.concatenate(column) for column in zip(*middle, *self._decoder_parts(), strict=True))
        most = float(sum(freedom.sum() for _, freedom in middle))
        if not v.any() or not np.isfinite(v).all():
            return most
        shares = v / v.sum()
        found = 1 / float(np.sum(shares**2 / (nu + 2))) - 2
        return min(max(found, float(nu.min())), most)

    def middle(self) -> float:
        """The middle sum."""
        return float(self.totals.mean() if self.moments is not None else self.values.mean())

    def total(self) -> float:
        """L_T + middle + L_0."""
        return float(self.prior.mean()) + self.middle() + float(self.decoder.mean())

    def standard_error(self) -> float:
        """The Monte-Carlo error: of the middle sum and of L_0, which are drawn apart."""
        return math.sqrt(self.middle_variance() + self.decoder_variance())

    def middle_variance(self) -> float:
        """Variance of the middle sum, from the spread of the replicates, or of a full sweep from neighbouring steps."""
        return float(sum(v.sum() for v, _ in self._middle_parts()))

    def _middle_parts(self) -> list[tuple[Array, Array]]:
        """The variance of the middle sum in independent parts, each with its degrees of freedom."""
        if self.moments is None:
            means = self.values.reshape(self.replicates, -1).mean(1)
            return [_part(np.var(means, ddof=1) / self.replicates, self.replicates - 1)]
        if self.replicates > 1:  # the repeats of one image differ by noise alone
            return [_within(self.totals.reshape(self.replicates, -1))]
        n = len(self.totals)
        # Neighbours share a step: a sum of squared first differences has two thirds of the degrees of freedom.
        freedom = np.full(len(self.weights), max(n - 1, 1) * 2 / 3)
        return [(self.weights**2 * step_variance(self.moments, n) / n, freedom)]

    def decoder_variance(self) -> float:
        """Variance of L_0: the draws of one image differ by noise alone.

        With one draw each it is the spread over images, which is an upper bound; with one draw of one image NaN.
        """
        draws, n = self.decoder.shape
        if draws > 1:  # one sum, as it always was, so that no last digit moves
            return float(np.mean(np.var(self.decoder, axis=0, ddof=1)) / (draws * n))
        return float(self._decoder_parts()[0][0].sum())

    def _decoder_parts(self) -> list[tuple[Array, Array]]:
        draws, n = self.decoder.shape
        if draws > 1:
            return [_within(self.decoder)]
        return [_part(np.var(self.decoder[0], ddof=1) / n if n > 1 else math.nan, max(n - 1, 1))]

    def test_set_error(self) -> float:
        """The sd over images of their own bounds, over sqrt(N); products of independent draws leave the noise out."""
        draws, n = self.decoder.shape
        if n < 2:
            return math.nan
        rest = self.prior + self.decoder.mean(0)
        rest = rest - rest.mean()
        noise = self.decoder_variance() * n if draws > 1 else 0.0
        if self.moments is not None:
            whole = self.totals.reshape(-1, n).mean(0) - self.totals.mean() + rest
            variance = float(np.mean(whole**2)) - noise - self.middle_variance() * n
            return math.sqrt(max(variance, 0.0) / (n - 1))
        centred = self.own - self.own.mean()
        count = np.bincount(self.image, minlength=n)
        one = np.bincount(self.image, centred, minlength=n)
        two = np.bincount(self.image, centred**2, minlength=n)
        pairs = float((count * (count - 1)).sum())
        if pairs == 0:
            return math.nan
        # E[z z'] of two draws of one image is the square of its own middle sum, less the mean's.
        squared = float((one**2 - two).sum()) / pairs
        cross = float((one * rest).sum()) / float(count.sum())
        variance = squared + 2 * cross + float(np.mean(rest**2)) - noise
        return math.sqrt(max(variance, 0.0) / (n - 1))


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
        decoder: What stands for p(x_0 | x_1); see :func:`ddpmkit.diffusion.likelihood.decoder_terms`.
        levels: Number K of grey levels.
        clip: Whether x0hat is clipped to [-1, 1], which is a valid model mean.
        control: Whether control variates are used; they change the error, not the expectation.

    Raises:
        DdpmkitError: when the draws are of another chain, or have no variances of their own where these are asked for.
    """
    if draws.T != tables.T:
        raise DdpmkitError(f"the draws are of a chain of {draws.T} steps, the tables of one of {tables.T}")
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
    decoded = np.empty(draws.decoder_mean.shape[:2])
    for d, row in enumerate(draws.decoder_mean):  # one draw at a time, so that memory stays small
        mean = torch.from_numpy(row).double()
        mean = mean.clamp(-1, 1) if clip else mean
        decoded[d] = decoder_terms(decoder, x0.double(), mean, variances[d], levels).sum(1).numpy() / unit

    if log_sigma2 is None:
        factor, constant = np.ones(tables.T), np.zeros(tables.T)
    else:
        factor, constant = middle_factor(tables, log_sigma2), draws.dims * middle_constant(tables, log_sigma2)
    if isinstance(draws.middle, Sampled):
        evidence, per_step = _sampled(
            draws.middle, prior, decoded, factor / unit, constant / unit, log_sigma2, clip, control
        )
    else:
        evidence, per_step = _swept(draws.middle, prior, decoded, factor / unit, constant / unit, log_sigma2, clip)

    at_one = float(decoded.mean()), math.sqrt(evidence.decoder_variance())
    miss = draws.decoder_mean.clip(-1, 1) if clip else draws.decoder_mean
    rmse = math.sqrt(float(np.mean(np.square(miss.astype(np.float64) - draws.x0)))) * (levels - 1) / 2
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


def _part(variance: float | np.floating[Any], freedom: float) -> tuple[Array, Array]:
    return np.array([float(variance)]), np.array([float(freedom)])


def _within(values: Array) -> tuple[Array, Array]:
    """The variance of a mean over draws and images (draws, N) in parts, one an image, with their degrees of freedom."""
    draws, n = values.shape
    return np.var(values, axis=0, ddof=1) / (draws * n**2), np.full(n, float(draws - 1))


def step_variance(m: Moments, images: int) -> Array:
    """Return the variance over noise of one image's value at each step, (T,), from its neighbour one step on.

    Two neighbours share the image and not the noise. Each is divided by its step's mean first, since the mean moves
    fast at small t: Var(E_t) = mean_t^2 * n / (n - 1) * mean over images of (E_t / mean_t - E_t+1 / mean_t+1)^2 / 2.
    The mean holds the image itself, and takes one degree of freedom; one image alone shows nothing, and gives NaN.
    """
    if images < 2:
        return np.full(len(m.total), math.nan)
    mean = m.total / images
    safe = np.where(mean == 0, 1.0, mean)
    relative = m.square / images / safe**2
    out = np.zeros(len(mean))
    if len(mean) < 3:  # no neighbour: the spread over images as well, an upper bound
        out[1:] = m.square[1:] / images - mean[1:] ** 2
        return out * images / (images - 1)
    product = m.lagged[1:-1] / images / (safe[1:-1] * safe[2:])
    half = np.maximum((relative[1:-1] + relative[2:]) / 2 - product, 0.0)
    out[1:-1], out[-1] = half * mean[1:-1] ** 2, half[-1] * mean[-1] ** 2
    return out * images / (images - 1)


def _sampled(
    s: Sampled,
    prior: Array,
    decoded: Array,
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

    def weighed(values: Array) -> Array:
        return (factor[s.t] * values + constant[s.t]) / s.proposal[s.t]

    z, own, nothing = weighed(x - adjust.sum(1)), weighed(x - within), np.zeros(0)
    evidence = Evidence(prior, decoded, z, own, s.image, s.replicates, nothing, nothing, None)
    block = blocks(T)
    size = len(z) // s.replicates
    where = np.repeat(np.arange(s.replicates), size) * (block.max() + 1) + block[s.t]
    sums = np.bincount(where, z, minlength=s.replicates * (block.max() + 1)).reshape(s.replicates, -1) / size
    bits, error = sums.mean(0), sums.std(0, ddof=1) / math.sqrt(s.replicates)
    nobody = np.bincount(block[s.t], minlength=block.max() + 1) == 0
    bits[nobody], error[nobody] = np.nan, np.nan
    return evidence, (bits, error)


def _swept(
    s: Swept, prior: Array, decoded: Array, factor: Array, constant: Array, log_sigma2: Array | None, clip: bool
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
    evidence = Evidence(prior, decoded, none, none, np.zeros(0, np.int64), s.repeats, totals, weights, m)
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
