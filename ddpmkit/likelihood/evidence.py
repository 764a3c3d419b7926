"""What a bound is the mean of, and so what its errors are: of the Monte Carlo given the images, and of the images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpmkit.diffusion.tables_for import Array
from ddpmkit.likelihood.draws import Plain, SweepSums


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
    moments: SweepSums | None

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
        effective = 1 / float(np.sum(shares**2 / (nu + 2))) - 2
        return min(max(effective, float(nu.min())), most)

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
        """The sd over images of their own bounds, over sqrt(N); products of independent draws leave the noise out.

        NaN where the draws are too few to tell the images apart: :meth:`test_set_variance` is then negative, and zero
        would say that all images are alike.
        """
        variance = self.test_set_variance()
        return math.sqrt(variance) if variance >= 0 else math.nan

    def test_set_variance(self) -> float:
        """Its square, sum_i (b_i - mean b)^2 / (N (N - 1)) of the images' bounds b_i, unbiased: it may be negative.

        A mean over the images that was measured takes its share of their noise nu with it: E (b_i + e_i - mean)^2 is
        (b_i - mean b)^2 + nu (N - 1) / N. With one draw an image at t=1 the noise of that draw stays in.
        """
        draws, n = self.decoder.shape
        if n < 2:
            return math.nan
        rest = self.prior + self.decoder.mean(0)
        rest = rest - rest.mean()
        noise = self.decoder_variance() if draws > 1 else 0.0  # of the mean: nu / N
        if self.moments is not None:
            whole = self.totals.reshape(-1, n).mean(0) - self.totals.mean() + rest
            return float(np.mean(whole**2) / (n - 1) - noise - self.middle_variance())
        mean = self.own.mean()
        centred = self.own - mean
        count = np.bincount(self.image, minlength=n)
        one = np.bincount(self.image, centred, minlength=n)
        two = np.bincount(self.image, centred**2, minlength=n)
        pairs = float((count * (count - 1)).sum())
        if pairs == 0:
            return math.nan
        # E[z z'] of two draws of one image is the square of its own middle sum, less the mean's: its noise is in both.
        of_mean = float(np.var(self.own.reshape(self.replicates, -1).mean(1), ddof=1)) / self.replicates
        squared = float((one**2 - two).sum()) / pairs + of_mean
        cross = float((one * rest).sum()) / float(count.sum())
        return float((squared + 2 * cross + np.mean(rest**2)) / (n - 1) - noise)


def _part(variance: float | np.floating[Any], freedom: float) -> tuple[Array, Array]:
    return np.array([float(variance)]), np.array([float(freedom)])


def _within(values: Array) -> tuple[Array, Array]:
    """The variance of a mean over draws and images (draws, N) in parts, one an image, with their degrees of freedom."""
    draws, n = values.shape
    return np.var(values, axis=0, ddof=1) / (draws * n**2), np.full(n, float(draws - 1))


def step_variance(m: SweepSums, images: int) -> Array:
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
