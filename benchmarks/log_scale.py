"""Would intervals and verdicts on a log scale be better for distances, which are positive and skewed?

    python benchmarks/log_scale.py               # every figure of benchmarks/log_scale.md, five seconds of one core
    python benchmarks/log_scale.py --studies 200

A study has a baseline and six other cells. Each cell's numbers over train seeds are drawn around one centre, with a
relative spread: normal (what falls below 0.01 is put there, for a distance is positive), or lognormal with sigma of the
log; alike in all cells, or apart by a factor of nine. On the linear scale a cell is mean -+ t s / sqrt(n), on the log
scale exp(mean of logs -+ t s_log / sqrt(n)); contrasts are paired t tests of x, or of log x, under Holm over the six.

A log interval is about the geometric mean, and under unequal spread two cells of one arithmetic mean have different
geometric means: "no difference" is not one hypothesis but two. False verdicts are therefore counted twice, for studies
in which the arithmetic means are equal and for studies in which the medians are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from scipy.special import stdtr, stdtrit

CELLS, ALPHA = 7, 0.05
LAWS = ("normal", "lognormal")
SIGMAS, SEEDS = (0.1, 0.3, 0.5), (3, 5, 10)
HEADS = (
    "law", "sigma", "spread", "seeds", "cells' intervals: linear, of the mean", "log, of the median",
    "linear, of the median", "log, of the mean", "false verdicts a study, equal means: linear", "log",
    "equal medians: linear", "log", "gap found: linear", "log",
)  # fmt: skip
SHARED = 0.5  # correlation of two cells over seeds, on the scale of the logs

Array = np.ndarray


def sigmas(sigma: float, equal: bool) -> Array:
    """Spread of each cell: all alike, or from a third to three times the middle one, (CELLS,)."""
    return np.full(CELLS, sigma) if equal else sigma * np.geomspace(1 / 3, 3, CELLS)


def draw(
    law: str, spread: Array, seeds: int, studies: int, level: str, gap: float, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Return numbers (studies, cells, seeds), and each cell's own arithmetic mean and median, (cells,).

    Args:
        law: normal or lognormal.
        spread: sigma of each cell, relative.
        seeds: train seeds.
        studies: how many.
        level: What all cells have in common, ``mean`` or ``median``; of a normal law they are the same.
        gap: Factor on the first of the other cells.
        rng: Generator.
    """
    shared = rng.normal(size=(studies, 1, seeds))
    z = np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * rng.normal(size=(studies, CELLS, seeds))
    factor = np.ones(CELLS)
    factor[CELLS // 2 + 1] = gap  # of middling spread; the baseline is the middle one
    s = spread[:, None]
    if law == "normal":
        # A distance is positive: what is not is drawn towards zero, which is rare but for the widest.
        x = np.maximum(1 + s * z, 0.01) * factor[:, None]
        centre = np.maximum(1 + s * rng.normal(size=(1, 200_000)), 0.01)
        return x, centre.mean(1) * factor, factor
    median = np.exp(-(spread**2) / 2) * factor if level == "mean" else factor
    return median[:, None] * np.exp(s * z), median * np.exp(spread**2 / 2), median


def covered(x: Array, truth: Array) -> float:
    """Share of cells whose 95 % interval holds the truth."""
    n = x.shape[-1]
    half = stdtrit(n - 1, 1 - ALPHA / 2) * x.std(-1, ddof=1) / np.sqrt(n)
    return float(np.mean(np.abs(x.mean(-1) - truth) <= half))


def rejected(x: Array) -> Array:
    """Holm's verdict for each cell but the baseline, which is the middle one: (studies, cells - 1)."""
    base = CELLS // 2
    d = np.delete(x, base, 1) - x[:, base : base + 1]
    n = d.shape[-1]
    p = 2 * stdtr(n - 1, -np.abs(d.mean(-1) / d.std(-1, ddof=1) * np.sqrt(n)))
    order = np.argsort(p, 1)
    steps = np.take_along_axis(p, order, 1) * np.arange(CELLS - 1, 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(steps, 1), 1)
    out = np.empty_like(adjusted)
    np.put_along_axis(out, order, adjusted, 1)
    return out <= ALPHA


def worlds() -> Iterator[tuple[str, float, bool, int]]:
    """Every law, spread, and number of seeds."""
    for law in LAWS:
        for sigma in SIGMAS:
            for equal in (True, False):
                for seeds in SEEDS:
                    yield law, sigma, equal, seeds


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=4000)
    studies = parser.parse_args().studies
    rng = np.random.default_rng(0)
    print("| " + " | ".join(HEADS) + " |")
    print("|" + ":--|" + "--:|" + ":--|" + "--:|" * 11)
    for law, sigma, equal, seeds in worlds():
        spread = sigmas(sigma, equal)
        row = []
        x, mean, median = draw(law, spread, seeds, studies, "mean", 1.0, rng)
        y = np.log(x)
        row += [covered(x, mean), covered(y, np.log(median)), covered(x, median), covered(y, np.log(mean))]
        for level in ("mean", "median"):
            x, _, _ = draw(law, spread, seeds, studies, level, 1.0, rng)
            row += [float(rejected(v).any(1).mean()) for v in (x, np.log(x))]
        # A gap of three sigmas: found in some studies, missed in others.
        x, _, _ = draw(law, spread, seeds, studies, "median", float(np.exp(-3 * sigma)), rng)
        row += [float(rejected(v)[:, CELLS // 2].mean()) for v in (x, np.log(x))]
        told = " | ".join(f"{100 * v:.1f}" for v in row)
        print(f"| {law} | {sigma} | {'equal' if equal else 'unequal'} | {seeds} | {told} |", flush=True)


if __name__ == "__main__":
    main()
