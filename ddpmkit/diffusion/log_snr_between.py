"""The log SNR of every step of a chain, from those of a few; no torch.

ln(1 + 1 / SNR), of a variance-preserving chain -ln alpha-bar, is a sum over the steps: 0 at t = 0 and nearly a
polynomial in t, so that a cubic spline through it is far nearer than one through log SNR, which has no end at t = 0.
"""

from __future__ import annotations

import numpy as np

from ddpmkit.plugin.tables import Array


def log_snr_between(t: Array, log_snr: Array, at: Array, T: int | None = None) -> Array:
    """Return ln SNR at the steps ``at``, float64; minus infinity from where the chain has no signal.

    Between two known steps it is a cubic spline in ln(1 + 1 / SNR), and where that would turn, as beside a jump, a
    monotone cubic (Fritsch & Carlson 1980, SIAM J. Numer. Anal. 17:238-246). A chain that adds the most noise at its
    first steps (``random-walk``, ``laplace``) has no polynomial at t = 0: there logarithms of both stand for the two.

    Args:
        t: Known steps, rising, t counted from 1, the first of them 1, (K,). A chain with signal at its end has its end
            here; otherwise the step where the next known one would be is the first without signal.
        log_snr: ln SNR there, finite and falling, (K,).
        at: Where it is asked, rising, from 1.
        T: Length of the chain, where it is known.
    """
    if not len(t):
        return np.full(len(at), -np.inf)
    inside = np.minimum(at, t[-1])
    grown = np.logaddexp(0.0, -log_snr)
    if len(t) > 1 and grown[0] / t[0] > grown[1] / t[1]:
        found = np.exp(_rising(np.log(t), np.log(grown), np.log(inside)))
    else:
        found = _rising(np.r_[0.0, t], np.r_[0.0, grown], inside)
    # expm1 of no more than 700: a step with less signal than a double can tell from none.
    inner = -np.log(np.expm1(np.minimum(found, 700.0)))
    return np.where(at > t[-1], _to_none(t, log_snr, at, T), inner)


def _to_none(t: Array, log_snr: Array, at: Array, T: int | None) -> Array:
    """Log SNR behind the last step with signal that is known: the power of what is left of the way, as just before."""
    gap = t[-1] - (t[-2] if len(t) > 1 else 0.0)
    gone = t[-1] + gap if T is None else min(t[-1] + gap, float(T))
    found = np.full(len(at), -np.inf)
    between = (at > t[-1]) & (at < gone)
    if len(t) > 1 and between.any():
        power = (log_snr[-2] - log_snr[-1]) / np.log((gone - t[-2]) / (gone - t[-1]))
        found[between] = log_snr[-1] + power * np.log((gone - at[between]) / (gone - t[-1]))
    return found


def _rising(x: Array, y: Array, at: Array) -> Array:
    """A cubic spline through points that rise, and in every interval in which it falls somewhere a monotone cubic."""
    from scipy.interpolate import CubicSpline, PchipInterpolator

    if len(x) < 2:
        return np.full(len(at), y[0])
    spline, monotone = CubicSpline(x, y), PchipInterpolator(x, y)
    a, b, first = spline.c[:3]
    wide = np.diff(x)
    last = (3 * a * wide + 2 * b) * wide + first
    # The slope is a parabola; at its lowest point, where that is inside, it is first - b^2 / 3a.
    dips = (a > 0) & (b < 0) & (-b < 3 * a * wide) & (3 * a * first < b**2)
    falls = (first < 0) | (last < 0) | dips
    where = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    found: Array = np.where(falls[where], monotone(at), spline(at))
    return found
