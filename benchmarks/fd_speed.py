"""The Frechet distance side by side with SciPy's sqrtm: ``python benchmarks/fd_speed.py > benchmarks/fd_speed.md``.

CPU seconds of one BLAS thread, so that other work on the machine does not count; medians of runs that take turns.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy
from scipy import linalg
from threadpoolctl import threadpool_limits

from ddpmkit import device as devices
from ddpmkit.distances.frechet import nuclear_norm, nuclear_norm_of_data
from ddpmkit.distances.frechet_error import debiased_frechet

D, FULL, FEW, TURNS = 2048, 5000, 1000, 3


def taking_turns(functions: dict[str, Callable[[], float]], turns: int) -> dict[str, tuple[float, float]]:
    """Name -> (median CPU seconds, value)."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    values = {}
    for turn in range(turns):
        for name, function in functions.items():
            started = time.process_time()
            values[name] = function()
            seconds[name].append(time.process_time() - started)
            print(f"turn {turn + 1}: {name}: {seconds[name][-1]:.3f} s", file=sys.stderr)
    return {name: (statistics.median(seconds[name]), values[name]) for name in functions}


def by_sqrtm(cov1: np.ndarray, cov2: np.ndarray) -> float:
    """The trace term as it is computed elsewhere."""
    return float(np.trace(linalg.sqrtm(cov1 @ cov2)).real)


def main() -> None:
    """Measure, print Markdown."""
    rng = np.random.default_rng(0)
    scale = 1 / np.sqrt(np.arange(1, D + 1))  # a spectrum that falls, as that of real features does
    print("# Speed of the Frechet distance\n")
    print("`python benchmarks/fd_speed.py > benchmarks/fd_speed.md`\n")
    import torch

    hardware = devices.fingerprint(torch.device("cpu"))["device_name"]
    versions = f"NumPy {np.__version__}, SciPy {scipy.__version__}"
    print(f"{hardware}, {versions}; CPU seconds of one BLAS thread, medians of {TURNS} runs that take turns.\n")
    print("| what | this project | SciPy's sqrtm | ratio | values agree to |")
    print("|---|---|---|---|---|")
    with threadpool_limits(1):
        x, y = (rng.standard_normal((FULL, D)) * scale for _ in range(2))
        cov1, cov2 = np.cov(x.T), np.cov(y.T)
        row(
            f"trace term from covariances, D = {D}, N = {FULL}",
            taking_turns({"ours": lambda: nuclear_norm(cov1, cov2), "sqrtm": lambda: by_sqrtm(cov1, cov2)}, TURNS),
        )
        a, b = ((v[:FEW] - v[:FEW].mean(0)) / np.sqrt(FEW - 1) for v in (x, y))
        low1, low2 = a.T @ a, b.T @ b
        row(
            f"trace term, D = {D}, N = {FEW} (singular)",
            taking_turns({"ours": lambda: nuclear_norm_of_data(a, b), "sqrtm": lambda: by_sqrtm(low1, low2)}, TURNS),
        )
        x, y = (rng.standard_normal((10_000, 64)) for _ in range(2))
        mu, cov = y.mean(0), np.cov(y.T)
        found = taking_turns({"ours": lambda: debiased_frechet(x, mu, cov).value}, 15)
        print(f"| debiased distance with its standard error, D = 64, N = 10000 | {found['ours'][0]:.3f} s | | | |")


def row(what: str, found: dict[str, tuple[float, float]]) -> None:
    """Print one line of the table."""
    (ours, value), (theirs, other) = found["ours"], found["sqrtm"]
    print(f"| {what} | {ours:.2f} s | {theirs:.2f} s | {theirs / ours:.1f} | {abs(value - other) / value:.0e} |")


if __name__ == "__main__":
    main()
