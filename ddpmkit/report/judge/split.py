"""What sets two cells' bits/dim apart, by noise level: their bounds split by log SNR, paired by train seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ddpmkit.diffusion.by_log_snr import each_step, shares, widest
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.reference import BITS
from ddpmkit.report.read.spent import Array, Spent, spent
from ddpmkit.statistics import ONE_RESULT, Contrast, Interval, Pairs, t_interval
from ddpmkit.statistics.paired import without_spread

EDGES = (0.0, 4.0, 8.0)  # of the table's bins: of equal noise and signal, and four and eight e-folds of SNR above
FURTHEST = 40  # log SNRs beyond which no figure looks
NEXT_TO_NOTHING = 1e-3  # of a bound: what a figure has no bins of their own for
TOTAL, PRIOR, DECODER = "total", "L_T", "L_0"


@dataclass(frozen=True)
class Part:
    """One part of two bounds, bits/dim.

    Attributes:
        name: L_T, a range of log SNR, L_0, or the total.
        cell: the cell's, a mean over the seeds.
        baseline: the baseline's.
        difference: cell less baseline, with its 95 % Student-t interval over train seeds, not adjusted; the total's is
            that of the table of differences, which agrees with the verdict.
        standard_error: Monte-Carlo error of the difference given the images, as of two independent draws; None where a
            block of steps in it has none.
    """

    name: str
    cell: float
    baseline: float
    difference: Interval
    standard_error: float | None


@dataclass(frozen=True)
class Along:
    """The same differences in bins that are one unit of log SNR wide, the first and the last open; L_T first, L_0 last.

    Attributes:
        edges: between the bins.
        difference: cell less baseline, (len(edges) + 3,).
        half: half of its interval over train seeds, not adjusted; None where there is none.
        standard_error: its Monte-Carlo error; None where it is not known.
        cumulative: the sum of the differences from L_T up to here; the last one is the difference of the bounds.
        cumulative_half: half of its own interval.
        cumulative_error: its Monte-Carlo error.
    """

    edges: tuple[float, ...]
    difference: tuple[float, ...]
    half: tuple[float | None, ...]
    standard_error: tuple[float | None, ...]
    cumulative: tuple[float, ...]
    cumulative_half: tuple[float | None, ...]
    cumulative_error: tuple[float | None, ...]


@dataclass(frozen=True)
class Split:
    """The difference of a cell's bound from the baseline's, in parts that sum to it.

    Attributes:
        seeds: the train seeds that both have.
        parts: L_T, ranges of log SNR from noise to the image, L_0, the total.
        along: the same in finer bins.
        widest: how wide in log SNR the widest step of the cell is that reaches into the table's inner bins.
        baseline_widest: the same of the baseline.
    """

    seeds: tuple[int, ...]
    parts: tuple[Part, ...]
    along: Along
    widest: float
    baseline_widest: float


def splits(
    records: Records,
    baseline: str,
    differences: Mapping[str, Mapping[str, Contrast]],
    copies: Mapping[str, Mapping[str, str]],
    originals: Mapping[str, str],
) -> dict[str, dict[str, Split]]:
    """Return metric -> cell -> its split; none where records are too old to say where a bound lies.

    Args:
        records: The study's.
        baseline: The cell that the others are compared with.
        differences: Metric -> cell -> contrast with it.
        copies: Metric -> cell -> the cell on whose results its own contrast rests too; it needs no split of its own.
        originals: A metric's name here -> its own name, where they differ.
    """
    pairs = {
        m: {c: d for c, d in by_cell.items() if d.n and d.verdict != ONE_RESULT and c not in copies.get(m, {})}
        for m, by_cell in differences.items()
        if originals.get(m, m) in BITS
    }
    if not any(pairs.values()):
        return {}
    found = spent(records, {baseline, *(c for by_cell in pairs.values() for c in by_cell)})
    laid = Laid()
    out: dict[str, dict[str, Split]] = {}
    for metric, by_cell in pairs.items():
        whole = {
            c: d.seeds for c, d in by_cell.items() if all((one, s) in found for one in (c, baseline) for s in d.seeds)
        }
        sides = {c: tuple([found[one, s] for s in seeds] for one in (c, baseline)) for c, seeds in whole.items()}
        fine = _bins(laid, [s for both in sides.values() for side in both for s in side])
        made = {
            c: Split(whole[c], _parts(laid, *both, whole=by_cell[c]), _along(laid, fine, *both), *map(_widest, both))
            for c, both in sides.items()
        }
        if made:
            out[metric] = made
    return out


def _parts(laid: Laid, cell: Sequence[Spent], base: Sequence[Spent], *, whole: Contrast) -> tuple[Part, ...]:
    """The rows of the table."""
    # A column a part, and the bounds as their records have them: what is in the table of differences.
    ours, theirs = (np.stack([np.c_[laid(s, EDGES), _whole(s)] for s in side]) for side in (cell, base))
    scale = max(s.total for s in (*cell, *base))
    rows = []
    for at, name in enumerate((PRIOR, *_ranges(), DECODER, TOTAL)):
        mine, other = ours[:, 0, at], theirs[:, 0, at]
        gap = _paired(mine, other, scale)
        if name == TOTAL:  # one difference has one interval
            gap = Interval(gap.mean, *whole.interval, gap.n)
        error = _mean_error(ours[:, 1, at], theirs[:, 1, at])
        rows.append(Part(name, float(mine.mean()), float(other.mean()), gap, error))
    return tuple(rows)


def _whole(s: Spent) -> tuple[float, float]:
    """A bound and its Monte-Carlo variance."""
    return s.total, math.nan if s.error is None else s.error**2


def _along(laid: Laid, edges: tuple[float, ...], cell: Sequence[Spent], base: Sequence[Spent]) -> Along:
    """The curve of a figure."""
    ours, theirs = (np.stack([laid(s, edges) for s in side]) for side in (cell, base))
    scale = max(s.total for s in (*cell, *base))
    out: list[tuple[float | None, ...]] = []
    for a, b in ((ours, theirs), (ours.cumsum(-1), theirs.cumsum(-1))):
        gaps = [_paired(mine, other, scale) for mine, other in zip(a[:, 0].T, b[:, 0].T, strict=True)]
        out.append(tuple(g.mean for g in gaps))
        out.append(tuple(None if g.high is None else g.high - g.mean for g in gaps))
        out.append(tuple(_mean_error(x, y) for x, y in zip(a[:, 1].T, b[:, 1].T, strict=True)))
    return Along(edges, *out)  # type: ignore[arg-type]


class Laid:
    """Bounds laid over bins, each once, whatever it is held against; and each chain's shares once, of all its seeds."""

    def __init__(self) -> None:
        self._parts: dict[tuple[Spent, tuple[float, ...]], Array] = {}
        self._shares: dict[tuple[bytes, bytes, tuple[float, ...]], tuple[Array, Array]] = {}

    def __call__(self, s: Spent, edges: tuple[float, ...]) -> Array:
        """A bound's parts and their Monte-Carlo variances, (2, len(edges) + 3); blocks of steps are drawn apart."""
        if (s, edges) not in self._parts:
            share, of_block = self._of(s, edges)
            # An error that is not known leaves those of the other bins what they are.
            variance = np.where(of_block == 0, 0.0, of_block**2 * s.errors**2).sum(1)
            parts = np.r_[s.prior, share @ each_step(s.last, s.bits), s.decoder]
            self._parts[s, edges] = np.stack([parts, np.r_[0.0, variance, s.errors[0] ** 2]])
        return self._parts[s, edges]

    def _of(self, s: Spent, edges: tuple[float, ...]) -> tuple[Array, Array]:
        """The shares of every step, and of every block's mean as if its steps were even."""
        key = s.log_snr.tobytes(), s.last.tobytes(), edges
        if key not in self._shares:
            share = shares(s.log_snr, np.array(edges))
            first = np.r_[0.0, s.last[:-1]].astype(int)
            self._shares[key] = share, np.add.reduceat(share, first, axis=1)
        return self._shares[key]


def _paired(cell: Array, base: Array, scale: float) -> Interval:
    """The mean difference over seeds; what floating point may have made of it is none, and shows no spread."""
    pairs = Pairs(tuple(range(len(cell))), tuple(cell.tolist()), tuple(base.tolist()), scale=scale)
    gap = t_interval(pairs.differences, rounding=pairs.rounding)
    flat = without_spread(pairs.differences, pairs.rounding)
    return Interval(gap.mean, None, None, gap.n) if flat else gap


def _mean_error(cell: Array, base: Array) -> float | None:
    """The standard error of a mean over seeds of differences, from the variances of both sides; None without one."""
    error = math.sqrt(float((cell + base).sum())) / len(cell)
    return error if math.isfinite(error) else None


def _widest(side: Sequence[Spent]) -> float:
    return max(widest(s.log_snr, np.array(EDGES)) for s in side)


def _bins(laid: Laid, every: Sequence[Spent]) -> tuple[float, ...]:
    """Whole log SNRs between which all but next to nothing of every bound lies."""
    edges = tuple(float(at) for at in range(-FURTHEST, FURTHEST + 1))
    low, high = [], []
    for s in every:
        # An estimate may be below zero, and so may a bound on a density: what lies below an edge need not rise.
        bits, little = laid(s, edges)[0, 1:-1], NEXT_TO_NOTHING * abs(s.total)
        up_to, from_on = np.abs(bits.cumsum()) >= little, np.abs(bits[::-1].cumsum()[::-1]) > little
        if up_to.any() and from_on.any():
            low.append(edges[max(int(up_to.argmax()) - 1, 0)])
            high.append(edges[min(int(from_on.nonzero()[0][-1]), len(edges) - 1)])
    least = min(low, default=0.0)
    return tuple(np.arange(least, max(high, default=least) + 1).tolist())


def _ranges() -> tuple[str, ...]:
    inner = (f"log SNR {a:g} to {b:g}" for a, b in pairwise(EDGES))
    return (f"log SNR below {EDGES[0]:g}", *inner, f"log SNR above {EDGES[-1]:g}")
