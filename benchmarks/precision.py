"""Is a precision harmless? The rule that stood before any number, applied to a study.

    ddpmkit ablate benchmarks/precision.toml
    python benchmarks/precision.py results/studies/precision
    python benchmarks/precision.py FOLDER --train bf16 --evaluate fp32   # one choice alone, as on a CPU with bf16

Harmless is where the 90 % interval of the paired difference from fp32, over five seeds or more, lies within 0.01
bits/dim and within 5 % of the Frechet distance, in every other cell of the grid; Student t, both sides of the interval.
Prints a line a cell and metric; exit 0 where all hold, 1 where one does not, 2 where seeds are too few.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

SEEDS = 5
LEVEL = 0.90
BITS, SHARE = 0.01, 0.05
METRICS = {"NLL": lambda base: BITS, "FD-digits-debiased": lambda base: SHARE * abs(base)}


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The interval of level LEVEL of the mean of paired differences."""
    n = len(differences)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * float(differences.std(ddof=1)) / math.sqrt(n)
    return float(differences.mean()) - half, float(differences.mean()) + half


def judged(
    rows: pd.DataFrame, axes: list[str], train: str, evaluate: str
) -> list[tuple[str, str, int, float, float, float]]:
    """A row for each other cell and metric: its name, the metric, pairs, both ends of the interval, the margin."""
    out = []
    others = [a for a in axes if a not in ("precision", "eval_precision")]
    for cell, group in rows.groupby(others or (lambda _: "all")):
        for metric, margin in METRICS.items():
            found = group[group.metric == metric].set_index("train_seed")
            base = found[(found.precision == "fp32") & (found.eval_precision == "fp32")].value
            new = found[(found.precision == train) & (found.eval_precision == evaluate)].value
            d = (new - base).dropna()
            ends = interval(d.to_numpy()) if len(d) > 1 else (math.nan, math.nan)
            name = " ".join(cell) if isinstance(cell, tuple) else str(cell)
            out.append((name, metric, len(d), *ends, margin(float(base.mean()))))
    return out


def main() -> int:
    """Print the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", type=Path, help="folder of a study with the axes precision and eval_precision")
    parser.add_argument("--train", default="bf16")
    parser.add_argument("--evaluate", default="tf32")
    asked = parser.parse_args()
    rows = pd.read_csv(asked.study / "results.csv")
    for axis in ("precision", "eval_precision"):
        if axis not in rows:
            rows[axis] = "fp32"  # no axis of this study
    code = 0
    for name, metric, pairs, low, high, margin in judged(rows, ["schedule"], asked.train, asked.evaluate):
        enough, holds = pairs >= SEEDS, -margin < low and high < margin
        verdict = "too few seeds" if not enough else "harmless" if holds else "not shown to be harmless"
        print(f"{name:12s} {metric:20s} {pairs} pairs  [{low:+.4f}, {high:+.4f}] within {margin:.4f}: {verdict}")
        code = max(code, 2 if not enough else 0 if holds else 1)
    return code


if __name__ == "__main__":
    sys.exit(main())
