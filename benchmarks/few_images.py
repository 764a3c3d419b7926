"""Do the intervals of ``bits_per_dim`` hold the truth with one, two, three and ten images?

    python benchmarks/few_images.py            # 400 seeds
    python benchmarks/few_images.py --seeds 60

A network whose bound is known in closed form, x0hat = x_t / 2: with T = 50 and four pixels under beta each error is a
scaled chi-square, and the first two steps hold most of the noise. This is a hard case; more pixels make it easier.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch

import ddpmkit
from ddpmkit.diffusion.bound_terms import middle_constant, middle_factor, prior_kl
from ddpmkit.diffusion.tables_for import fixed_log_variance, tables_for
from ddpmkit.likelihood import Bound, bits_per_dim

T, LEVELS, VARIANCE = 50, 17, 0.05
TABLES = tables_for(ddpmkit.build("schedule", "linear"), T)
BETA = fixed_log_variance(ddpmkit.build("sigma", "beta"), TABLES)
WAYS = {"full": {"full": True}, "sampled": {"evals": 1200}}


def images(count: int) -> np.ndarray:
    """Levels (N, 1, 2, 2); always the same."""
    return np.random.default_rng(5).integers(0, LEVELS, (count, 1, 2, 2)).astype(np.uint8)


def truth(levels: np.ndarray) -> float:
    """The bound in bits/dim: E ||x0 - x_t / 2||^2 = (1 - m/2)^2 ||x0||^2 + d s^2 / 4 at every step."""
    x0 = levels.reshape(len(levels), -1) * 2 / (LEVELS - 1) - 1
    d = x0.shape[1]
    error = (1 - TABLES.signal / 2) ** 2 * np.square(x0).sum(1).mean() + d * TABLES.noise2 / 4
    terms = middle_factor(TABLES, BETA) * error + d * middle_constant(TABLES, BETA)
    decoder = error[0] / (2 * VARIANCE) + d / 2 * math.log(2 * math.pi * VARIANCE)
    prior = float(prior_kl(TABLES, torch.from_numpy(x0)).mean())
    return float(prior + terms[1:].sum() + decoder) / (d * math.log(2))


def measured(levels: np.ndarray, how: dict[str, object], seed: int) -> Bound:
    """Bound the images, not clipped."""
    return bits_per_dim(
        lambda xt, t: xt / 2, levels, schedule=TABLES, timesteps=T, sigma=np.exp(BETA), prediction="x0", levels=LEVELS,
        decoder="continuous", decoder_variance=VARIANCE, seed=seed, micro_batch=64, **how,
    )  # fmt: skip


def main() -> None:
    """Print a row for each number of images and each form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=400)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    print("| images | form | evaluations | spread of the bound | standard error | degrees of freedom | truth held |")
    print("|--:|:--|--:|--:|--:|--:|--:|")
    for count in (1, 2, 3, 10):
        levels = images(count)
        for name, how in WAYS.items():
            found = [measured(levels, how, seed) for seed in range(seeds)]
            hits = np.mean([b.interval[0] < truth(levels) < b.interval[1] for b in found])
            error = math.sqrt(np.mean([b.standard_error**2 for b in found]))
            freedom = np.median([b.evidence.degrees_of_freedom() for b in found])
            spread = np.std([b.total for b in found], ddof=1)
            row = f"{count} | {name} | {found[0].evaluations} | {spread:.3f} | {error:.3f} | {freedom:.0f}"
            print(f"| {row} | {100 * hits:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
