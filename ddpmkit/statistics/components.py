"""How much of the scatter comes from training, from sampling, and from measuring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ddpmkit.statistics.rounding import ROUNDING, cleared


@dataclass(frozen=True)
class Components:
    """Variances of one result's number, in squared units of the metric.

    Attributes:
        train: between train seeds; holds the sampling part too where that is None, and the evaluation part where that
            is None and there is one number a train seed.
        sample: between sample seeds of one trained network; None with one sample seed, or where it plays no part.
        evaluation: of the Monte-Carlo estimate itself, from its standard error; None where the metric has none.
        train_df: degrees of freedom of ``train``.
        sample_df: degrees of freedom of ``sample``.
        repeats: numbers averaged inside a train seed (their effective number where they are unequal).
    """

    train: float
    sample: float | None
    evaluation: float | None
    train_df: int
    sample_df: int
    repeats: float

    def of_mean(self, repeats: float | None = None) -> float:
        """Return the variance of a train seed's mean over so many sample seeds."""
        inner = (self.sample or 0.0) + (self.evaluation or 0.0)
        return self.train + inner / (self.repeats if repeats is None else repeats)


def components(
    cells: Iterable[Mapping[int, Sequence[float]]], evaluation_variance: float | None = None
) -> Components | None:
    """Split the variance of nested numbers by the analysis of variance, pooled over cells; None below two train seeds.

    With r repeats: E MS_within = s_sample^2 + s_evaluation^2, E MS_train = E MS_within + r s_train^2; a negative
    estimate is written as 0. Unequal r enter by their effective number (Searle, Casella & McCulloch 1992, Variance
    Components, chapter 3).

    Args:
        cells: for each cell, train seed -> its numbers, one a sample seed.
        evaluation_variance: mean squared standard error of one number.
    """
    ss_train = ss_within = size = largest = 0.0
    df_train = df_within = 0
    for cell in cells:
        groups = [np.asarray(v, dtype=np.float64) for v in cell.values() if len(v)]
        if not groups:
            continue
        counts = np.array([len(g) for g in groups], dtype=np.float64)
        means = np.array([g.mean() for g in groups])
        largest = max(largest, *(float(np.abs(g).max()) for g in groups))
        grand = float(counts @ means / counts.sum())
        ss_train += float(counts @ (means - grand) ** 2)
        ss_within += float(sum(((g - m) ** 2).sum() for g, m in zip(groups, means, strict=True)))
        df_train += len(groups) - 1
        df_within += int(counts.sum()) - len(groups)
        size += float(counts.sum() - (counts**2).sum() / counts.sum())
    if df_train == 0:
        return None
    # Numbers that are all the same have means that differ in their last bits.
    none = (ROUNDING * largest) ** 2
    repeats = size / df_train
    ms_train = cleared(ss_train / df_train, none * repeats)
    noise = evaluation_variance or 0.0
    if df_within == 0:
        return Components(max(0.0, ms_train - noise), None, evaluation_variance, df_train, 0, repeats)
    within = cleared(ss_within / df_within, none)
    train = max(0.0, (ms_train - within) / repeats)
    return Components(train, max(0.0, within - noise), evaluation_variance, df_train, df_within, repeats)
