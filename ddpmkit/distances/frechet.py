"""The Frechet distance between two Gaussians, in float64, its trace term a sum of singular values.

d^2 = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 ||L1^T L2||_*, S_i = L_i L_i^T (Dowson & Landau 1982; Heusel et al. 2017,
arXiv 1706.08500, eq. 6). No matrix square root, no epsilon on the diagonal, no imaginary part to drop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg

from ddpmkit.errors import DdpmkitError

Array = np.ndarray[Any, np.dtype[np.float64]]
Levels = np.ndarray[Any, np.dtype[np.uint8]]

MOST = 1e60  # of a feature's size: sums of fourth powers, as in products of covariances, are what float64 holds
LEAST = 1 / MOST  # and do not vanish


def frechet_distance(x: Array, y: Array) -> float:
    """Return the squared Frechet distance between Gaussians fitted to two feature arrays, (N1, D) and (N2, D).

    With fewer samples than dimensions the covariances are singular, and the trace term is taken from the centred data.

    Raises:
        DdpmkitError: for fewer than two samples, different D, or features that are not finite.
    """
    x, y = checked_pair(x, y)
    varying = (np.ptp(x, axis=0) > 0) | (np.ptp(y, axis=0) > 0)
    mean_term = float(np.square(x.mean(0) - y.mean(0)).sum())
    if not varying.any():
        return mean_term
    a, b = (_centred(v[:, varying]) for v in (x, y))
    return _assemble(mean_term, float(np.square(a).sum()), float(np.square(b).sum()), nuclear_norm_of_data(a, b))


def frechet_from_moments(mu1: Array, cov1: Array, mu2: Array, cov2: Array) -> float:
    """Return the squared Frechet distance of N(mu1, cov1) and N(mu2, cov2); shapes (D,), (D, D).

    Raises:
        DdpmkitError: when the shapes disagree, a value is not finite, or a matrix is no covariance.
    """
    mu1, mu2 = np.atleast_1d(np.asarray(mu1, np.float64)), np.atleast_1d(np.asarray(mu2, np.float64))
    cov1, cov2 = np.atleast_2d(np.asarray(cov1, np.float64)), np.atleast_2d(np.asarray(cov2, np.float64))
    d = len(mu1)
    if mu2.shape != (d,) or cov1.shape != (d, d) or cov2.shape != (d, d):
        raise DdpmkitError(
            f"moments of shapes {mu1.shape}, {cov1.shape}, {mu2.shape}, {cov2.shape} do not go together",
            "use one extractor for both",
        )
    check_moments(mu1, cov1)
    check_moments(mu2, cov2)
    mean_term = float(np.square(mu1 - mu2).sum())
    return _assemble(mean_term, float(np.trace(cov1)), float(np.trace(cov2)), nuclear_norm(cov1, cov2))


def check_moments(mu: Array, cov: Array) -> None:
    """Refuse a mean (D,) and a covariance (D, D) that are not finite or not symmetric.

    Raises:
        DdpmkitError: with what is wrong.
    """
    if not (np.isfinite(mu).all() and np.isfinite(cov).all()):
        raise DdpmkitError("moments hold values that are not finite", "look at the features they were made from")
    if not np.allclose(cov, cov.T, rtol=1e-6, atol=1e-9 * np.abs(cov).max()):
        raise DdpmkitError("a covariance is not symmetric", "pass cov = np.cov(features.T)")


def nuclear_norm(cov1: Array, cov2: Array) -> float:
    """The trace term tr (S1 S2)^(1/2) = ||L1^T L2||_*, from covariances (D, D)."""
    return float(linalg.svdvals(factor(cov1).T @ factor(cov2), check_finite=False, overwrite_a=True).sum())


def nuclear_norm_of_data(a: Array, b: Array) -> float:
    """The trace term ||A B^T||_* from centred data divided by sqrt(N - 1), (N1, D) and (N2, D); exact at any rank."""
    # L^T L = A^T A for the triangular factor of A = Q R, so the singular values of R_a R_b^T are those of A B^T.
    ra, rb = (linalg.qr(v, mode="r", check_finite=False)[0][: v.shape[1]] if len(v) > v.shape[1] else v for v in (a, b))
    return float(linalg.svdvals(ra @ rb.T, check_finite=False, overwrite_a=True).sum())


def factor(cov: Array) -> Array:
    """Return L with cov = L L^T, (D, D); of a singular covariance from its eigenvectors.

    Raises:
        DdpmkitError: when an eigenvalue is clearly negative.
    """
    try:
        return np.asarray(linalg.cholesky(cov, lower=True, check_finite=False))
    except linalg.LinAlgError:
        values, vectors = linalg.eigh((cov + cov.T) / 2, check_finite=False)
        if values[0] < -1e-8 * max(values[-1], 0.0):
            raise DdpmkitError("a covariance is not positive semi-definite", "pass cov = np.cov(features.T)") from None
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


def checked_pair(x: Array | Levels, y: Array | Levels) -> tuple[Array, Array]:
    """Return two feature arrays as float64, (N1, D) and (N2, D).

    Raises:
        DdpmkitError: for fewer than two samples, different D, or features that are not finite.
    """
    x, y = checked(x, "x"), checked(y, "y")
    if x.shape[1] != y.shape[1]:
        raise DdpmkitError(f"features have {x.shape[1]} and {y.shape[1]} dimensions", "use one extractor for both")
    return x, y


def checked(x: Array | Levels, name: str) -> Array:
    """Return a feature array as float64, (N, D) with N of at least 2.

    Raises:
        DdpmkitError: for another shape, or features that are not finite or too large or small for float64.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise DdpmkitError(
            f"{name} has shape {x.shape}; a distance needs (N, D) with N of at least 2", "take more samples"
        )
    bad = int((~np.isfinite(x)).any(axis=1).sum())
    if bad:
        raise DdpmkitError(
            f"{name} holds features that are not finite, in {bad} of {len(x)} rows", "look at those images"
        )
    if (most := float(np.abs(x).max(initial=0.0))) and not LEAST <= most <= MOST:
        raise DdpmkitError(
            f"{name} holds features of up to {most:.3g} in size, whose fourth powers float64 does not hold",
            f"scale the features: the largest must lie in {LEAST:g} .. {MOST:g}",
        )
    return x


def _assemble(mean_term: float, trace1: float, trace2: float, cross: float) -> float:
    distance = mean_term + trace1 + trace2 - 2 * cross
    slack = 1e-9 * (trace1 + trace2)
    if distance < -slack:
        raise DdpmkitError(
            f"the distance came out as {distance:g}; the covariances are not positive semi-definite",
            "pass cov = np.cov(features.T)",
        )
    return max(distance, 0.0)


def _centred(x: Array) -> Array:
    return np.asarray((x - x.mean(0)) / np.sqrt(len(x) - 1))
