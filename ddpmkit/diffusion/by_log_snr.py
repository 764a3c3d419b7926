"""A bound along log SNR, the axis that chains of any schedule and length share; no torch.

In the limit of many steps the bound between two noise levels is 1/2 int e^l E ||x0 - x0hat(x_l)||^2 dl, l = ln SNR, and
depends on the schedule through its two ends alone (Kingma et al. 2021, arXiv 2107.00630, eq. 18). A chain of T steps
spends L_{t-1} on its way from SNR_t to SNR_{t-1}: that term is laid evenly over the log SNRs between the two.
"""

from __future__ import annotations

import numpy as np

from ddpmkit.plugin.tables import Array


def shares(log_snr: Array, edges: Array) -> Array:
    """Return how much of each step's term lies in each bin, float64 (len(edges) + 1, T): every column sums to 1.

    Step t runs from ln SNR_t to ln SNR_{t-1}. Column 0, t=1 of the papers, is zero: L_0 is the decoder's, and lies
    above all that the chain visits, as L_T lies below it.

    Args:
        log_snr: ln SNR of every step, falling, (T,). A step of no width, and one from no signal at all, lies at its
            upper end.
        edges: Rising; the first bin is all that lies below them, the last one all that lies above.
    """
    low, high = log_snr[1:], log_snr[:-1]
    wide = np.isfinite(low) & (high > low)
    width = np.where(wide, high, 1.0) - np.where(wide, low, 0.0)
    start = np.where(wide, low, high)
    below = np.where(wide, np.clip((edges[:, None] - start) / width, 0.0, 1.0), edges[:, None] > high)
    none, all_ = np.zeros((1, len(high))), np.ones((1, len(high)))
    return np.hstack([np.zeros((len(edges) + 1, 1)), np.diff(np.vstack([none, below, all_]), axis=0)])


def widest(log_snr: Array, edges: Array) -> float:
    """Return how wide in log SNR the widest step is of those that reach between the first edge and the last, or 0.

    A step from no signal at all has no width. Arguments as of :func:`shares`.
    """
    low, high = log_snr[1:], log_snr[:-1]
    reach = np.isfinite(low) & (high > edges[0]) & (low < edges[-1])
    return float((high[reach] - low[reach]).max(initial=0.0))


def each_step(last: Array, bits: Array) -> Array:
    """Return each step's term, float64 (..., T), from the mean over blocks of steps; every block keeps its sum.

    The sum up to the end of each block is known, and is a monotone cubic in t between (Fritsch & Carlson 1980, SIAM J.
    Numer. Anal. 17:238-246): the mean at every step would put too much where a long block has little.

    Args:
        last: Last step of each block, t counted from 1, (blocks,); the first block is t=1 alone.
        bits: Mean over the block's steps, (..., blocks); NaN where nothing was drawn, which counts as nothing.
    """
    from scipy.interpolate import PchipInterpolator

    sums = np.nan_to_num(bits) * np.diff(last, prepend=0)
    spent = np.cumsum(sums, -1)
    if len(last) == last[-1]:
        return np.asarray(sums, np.float64)
    along = PchipInterpolator(last, spent, axis=-1)(np.arange(1, last[-1] + 1))
    return np.concatenate([sums[..., :1], np.diff(along, axis=-1)], -1)
