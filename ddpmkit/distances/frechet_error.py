"""What a Frechet distance of N samples is worth: its 1/N bias, its standard error, the value of a perfect model.

The plain distance of finite samples is too large, even for the true distribution, by a term of order 1/N that depends
on the model (Chong & Forsyth 2020, arXiv 1911.07023). The difference of the distance of all samples and of their halves
is that term.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg

from ddpmkit.distances.frechet import checked, factor, frechet_distance, frechet_from_moments
from ddpmkit.distances.measurement import Measurement
from ddpmkit.distances.moments import Moments

Array = np.ndarray[Any, np.dtype[np.float64]]
SPLIT_SEED = 0


def debiased_frechet(
    x: Array, mu: Array, cov: Array, *, n_reference: int = 0, reference: Array | None = None
) -> Measurement:
    """The Frechet distance of samples (N, D) to a fixed reference, its 1/N bias taken off, with a standard error.

    value = 2 FD_N - (FD_half1 + FD_half2) / 2 over one seeded split of the samples; it may be negative, and is left so.
    The error is that of samples of one model: the reference is held fixed, and the sampling error of the reference is
    not in it. With N below 2 (D + 1) the halves are singular: the value is then the plain distance, and has no error
    (``details["debiased"]`` is False, ``details["note"]`` says why).

    Args:
        x: Features of the samples, (N, D).
        mu: Mean of the reference, (D,).
        cov: Covariance of the reference, (D, D).
        n_reference: Samples behind them; 0 when they are exact, or the number is unknown.
        reference: Features behind them, (M, D), for an exact trace term where N or M is not above D.

    Raises:
        DdpmkitError: for fewer than two samples, different D, or features that are not finite.
    """
    x = checked(x, "x")
    n, d = x.shape
    whole = Moments.of(x)
    if reference is not None and min(n, len(reference)) <= d:
        plain = frechet_distance(x, reference)
    else:
        plain = frechet_from_moments(whole.mean, whole.cov, mu, cov)
    details: dict[str, Any] = {"plain": plain, "n": n, "dims": d, "expected": expected_frechet(cov, n, n_reference)}
    if n < 2 * (d + 1):
        less = f"below the {d} dimensions" if n < d else f"below twice the {d} dimensions"
        note = _few_references(n_reference, d, f"N = {n} is {less}: no debiased value and no standard error")
        return Measurement(plain, None, details | {"debiased": False} | note)
    order = np.random.default_rng(SPLIT_SEED).permutation(n)
    first = Moments.of(x[order[: n // 2]])
    second = Moments.of(x[order[n // 2 :]])
    halves = [frechet_from_moments(m.mean, m.cov, mu, cov) for m in (first, second)]
    value = 2 * plain - sum(halves) / 2
    effect = influence(x, whole, mu, cov)
    said = ""
    if effect is None:
        said = "some features never vary in the samples: no standard error"
    elif n < 8 * d:
        said = f"N = {n} is below 8 x {d} dimensions: the bias is known only roughly"
    return Measurement(value, effect, details | {"debiased": True} | _few_references(n_reference, d, said))


def _few_references(n_reference: int, dims: int, said: str) -> dict[str, str]:
    """Return the note of a distance, and in it that the reference has no more images than dimensions."""
    few = (
        f"{n_reference} reference images are no more than the {dims} dimensions: their covariance is singular, and the "
        "distance says mostly how few they are"
        if 0 < n_reference <= dims
        else ""
    )
    note = "; ".join(text for text in (said, few) if text)
    return {"note": note} if note else {}


def influence(x: Array, own: Moments, mu: Array, cov: Array) -> Array | None:
    """The first-order effect of each sample on the distance to N(mu, cov), (N,), mean zero; None if S1 is singular.

    psi(x) = 2 (mu1 - mu2).(x - mu1) + (x - mu1)^T (I - T) (x - mu1) - tr((I - T) S1), where T is the transport map
    from N(mu1, S1) to N(mu2, S2): with S1 = L L^T, T = L^-T (L^T S2 L)^(1/2) L^-1, so that T S1 T = S2. It is the
    derivative of the Bures distance (Dowson & Landau 1982) along the empirical distribution.

    Args:
        x: Features of the samples, (N, D).
        own: Their moments.
        mu: Mean of the reference, (D,).
        cov: Covariance of the reference, (D, D).
    """
    alive = (np.diag(own.scatter) > 0) | (np.diag(cov) > 0)
    s1, s2 = own.cov[np.ix_(alive, alive)], cov[np.ix_(alive, alive)]
    centred = x - own.mean
    effect = 2 * centred @ (own.mean - mu)
    if alive.any():
        try:
            lower = linalg.cholesky(s1, lower=True, check_finite=False)
        except linalg.LinAlgError:
            return None
        # A condition number of 1e20 would pass Cholesky by luck, and the inverse below would be noise.
        if np.diag(lower).min() < 1e-7 * np.diag(lower).max():
            return None
        u, s, _ = linalg.svd(lower.T @ factor(s2), check_finite=False)
        # T = B diag(s) B^T with B = L^-T U
        b = linalg.solve_triangular(lower, u, lower=True, trans="T", check_finite=False)
        y = centred[:, alive]
        effect += np.square(y).sum(1) - np.square(y @ b) @ s
    return np.asarray(effect - effect.mean())


def expected_frechet(cov: Array, n: int, n_reference: int = 0) -> float:
    """The plain distance that a perfect model would get on average: samples and reference from N(mu, cov).

    (1/n1 + 1/n2) [ sum_i l_i + 1/2 sum_ij l_i l_j (1 + delta_ij) / (l_i + l_j) ], l the eigenvalues of cov (D, D): the
    error of the mean, and the Bures metric of the sampling error of the covariance. To 3 % once N is above 8 D.

    Args:
        cov: Covariance, (D, D).
        n: Number of samples.
        n_reference: Number of reference samples, 0 when the reference is exact.
    """
    values = np.maximum(linalg.eigvalsh(cov, check_finite=False), 0)
    values = values[values > 0]
    pairs = np.multiply.outer(values, values) / np.add.outer(values, values)
    per_sample = float(values.sum() + (pairs.sum() + np.trace(pairs)) / 2)
    return per_sample * (1 / n + (1 / n_reference if n_reference else 0.0))
