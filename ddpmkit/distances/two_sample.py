"""The classifier two-sample test: can anything tell samples from the reference?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ddpmkit.distances.frechet import checked_pair
from ddpmkit.distances.measurement import Measurement
from ddpmkit.errors import DdpmkitError

Array = np.ndarray[Any, np.dtype[np.float64]]
Levels = np.ndarray[Any, np.dtype[np.uint8]]
FOLDS, TREES, SEED, MOST = 5, 100, 0, 2000


def two_sample_test(x: Array | Levels, y: Array | Levels) -> Measurement:
    """The AUC of a cross-fitted classifier of samples (N, D) against a reference (M, D), and the p-value of AUC = 1/2.

    Gradient boosting is fitted on four fifths and scores the fifth it has not seen, five times (Lopez-Paz & Oquab 2017,
    arXiv 1610.06545, sec. 3). 0.5 is the ideal; far below 0.5, samples copy reference points. Given the classifier, the
    Mann-Whitney test of one fold holds, but the folds depend on each other; the p-value is 5/3 times the median of the
    five, which holds whatever the dependence (Rueger 1978; Meinshausen et al. 2009). The AUC saturates: good for
    whether samples can be told apart at all, not for ranking. Of more than 2000 rows of a set, 2000 are drawn.

    Args:
        x: Pixels or features of the samples, (N, D).
        y: Those of the reference, (M, D).

    Raises:
        DdpmkitError: for fewer than ten rows in a set, different D, or values that are not finite.
    """
    # Imported here: a second that every worker would wait, and few need.
    from scipy.stats import mannwhitneyu
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    x, y = checked_pair(x, y)
    reason = no_two_sample_test(len(x), len(y))
    if reason:
        raise DdpmkitError(reason, "take more samples")
    x, y = _subsample(x), _subsample(y)
    rows, is_sample = np.concatenate([x, y]), np.repeat([1, 0], [len(x), len(y)])
    aucs, tails, variances = [], [], []
    for fit, test in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(rows, is_sample):
        model = HistGradientBoostingClassifier(max_iter=TREES, random_state=SEED, early_stopping=False)
        model.fit(rows[fit], is_sample[fit])
        score = model.decision_function(rows[test])
        ours, theirs = score[is_sample[test] == 1], score[is_sample[test] == 0]
        mann_whitney = mannwhitneyu(ours, theirs, alternative="greater", method="asymptotic")
        aucs.append(mann_whitney.statistic / (len(ours) * len(theirs)))
        tails.append(mann_whitney.pvalue)
        variances.append(_auc_variance(ours, theirs))
    p = min(1.0, float(np.median(tails)) * FOLDS / (FOLDS // 2 + 1))
    details = {"p": p, "se_folds": math.sqrt(sum(variances)) / FOLDS, "folds": FOLDS, "rows": [len(x), len(y)]}
    return Measurement(float(np.mean(aucs)), None, details)


def no_two_sample_test(n: int, m: int) -> str | None:
    """Say why N samples and M reference images make no test; None where they do: a fold has two of each."""
    return None if min(n, m) >= 2 * FOLDS else f"the two-sample test of {n} against {m} rows needs {2 * FOLDS} of each"


def _subsample(x: Array) -> Array:
    """At most 2000 rows; not the first ones, since files are often sorted: half of MNIST's test images are cleaner."""
    if len(x) <= MOST:
        return x
    return np.asarray(x[np.sort(np.random.default_rng(SEED).permutation(len(x))[:MOST])])


def _auc_variance(ours: Array, theirs: Array) -> float:
    """The variance of an AUC from its placements (DeLong et al. 1988)."""
    above = (ours[:, None] > theirs[None]) + 0.5 * (ours[:, None] == theirs[None])
    return float(above.mean(1).var(ddof=1) / len(ours) + above.mean(0).var(ddof=1) / len(theirs))
