"""How often are verdicts of a growing study false, and how many seeds do they take?

    python benchmarks/anytime.py                  # 2,000 studies a row, half a minute
    python benchmarks/anytime.py --studies 20000

A study has a baseline and two cells, and so two contrasts. It grows one seed at a time from 2 to 20, with a look at
each number; a cell whose contrast is settled gets no more seeds, and the baseline goes on until both are. The gap of
both cells, and the margin, are in standard deviations of the paired difference.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ddpmkit.statistics import ALPHA, G, seeds_needed
from ddpmkit.statistics.anytime import half_width, log_e

FEWEST, MOST, CONTRASTS = 2, 20, 2
LEVEL = ALPHA / CONTRASTS
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
# Law -> sigma of the cells and of the baseline; None is normal.
LAWS: dict[str, tuple[float, float] | None] = {
    "normal": None,
    "lognormal .3, baseline .1": (0.3, 0.1),
    "lognormal .1, baseline .3": (0.1, 0.3),
    "lognormal .5, baseline .2": (0.5, 0.2),
    "lognormal .2, baseline .5": (0.2, 0.5),
}
NOT_PROMISED: dict[str, tuple[float, float] | None] = {
    "lognormal 1, baseline .3": (1.0, 0.3),
    "lognormal .3, baseline 1": (0.3, 1.0),
}


@dataclass(frozen=True)
class Found:
    """What became of the studies of one row.

    Attributes:
        false: share of studies in which a false verdict could be read at any look.
        right: share of contrasts that ended with the right verdict.
        seeds: mean number of seeds at which a contrast was settled, the most where it never was.
        cell: mean number of seeds of a cell, the baseline included.
    """

    false: float
    right: float
    seeds: float
    cell: float


def differences(law: tuple[float, float] | None, gap: float, studies: int, seed: int) -> Array:
    """Paired differences (studies, contrasts, seeds) of mean ``gap`` and standard deviation 1."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((studies, 1 + CONTRASTS, MOST))
    if law is None:
        return (normal[:, 1:] - normal[:, :1]) / math.sqrt(2) + gap
    sigma = np.array([law[1], *[law[0]] * CONTRASTS])[:, None]
    values = np.exp(sigma * normal - sigma**2 / 2)  # of mean 1
    return (values[:, 1:] - values[:, :1]) / math.sqrt(sum(math.expm1(s**2) for s in law)) + gap


def by_e_value(d: Array, n: int, margin: float | None, g: float = G) -> Array:
    """The verdicts after n seeds: the sign of the gap, 2 for none larger than the margin, 0 for inconclusive."""
    mean, sd = d[..., :n].mean(-1), d[..., :n].std(-1, ddof=1)
    said = np.where(log_e(math.sqrt(n) * mean / sd, n, g=g) >= -math.log(LEVEL), np.sign(mean), 0.0)
    within = np.abs(mean) + sd * half_width(n, LEVEL, g=g) < (margin or 0.0)
    return np.where((said == 0) & within, 2.0, said)


def by_t_test(d: Array, n: int, margin: float | None) -> Array:
    """The same by the t test of a fixed number of seeds at level alpha / 2, looked at again and again."""
    mean, sd = d[..., :n].mean(-1), d[..., :n].std(-1, ddof=1)
    t = math.sqrt(n) * mean / sd
    return np.where(np.abs(t) >= stdtrit(n - 1, 1 - LEVEL / 2), np.sign(mean), 0.0)


def grow(
    d: Array, gap: float, margin: float | None, judge: Callable[[Array, int, float | None], Array] = by_e_value,
    fewest: int = FEWEST, most: int = MOST,
) -> Found:  # fmt: skip
    """Let the studies grow with a look at each number of seeds."""
    verdict = np.zeros(d.shape[:2])
    stopped = np.full(d.shape[:2], float(most))
    false = np.zeros(len(d), dtype=bool)
    for n in range(fewest, most + 1):
        now = judge(d, n, margin)
        wrong = np.isin(now, (-1.0, 1.0)) & (now != np.sign(gap))
        wrong |= (now == 2) & (margin is not None and abs(gap) >= (margin or 0.0))
        false |= wrong.any(1)
        fresh = (verdict == 0) & (now != 0)
        verdict[fresh], stopped[fresh] = now[fresh], n
    right = verdict == (np.sign(gap) if gap else 2.0)
    cell = (stopped.sum(1) + stopped.max(1)) / (1 + CONTRASTS)
    return Found(float(false.mean()), float(right.mean()), float(stopped.mean()), float(cell.mean()))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=2000)
    studies = parser.parse_args().studies
    print("| law | gap, sd | margin, sd | studies with a false verdict | right verdicts | seeds a contrast | a cell |")
    print("|:--|--:|--:|--:|--:|--:|--:|")
    for row, (name, law) in enumerate({**LAWS, **NOT_PROMISED}.items()):
        for gap in (0.0, 1.0, 2.0):
            d = differences(law, gap, studies, seed=row)
            for margin in (None, 1.0):
                f = grow(d, gap, margin)
                right = "-" if gap == 0 and margin is None else f"{100 * f.right:.0f} %"
                said = "none" if margin is None else f"{margin:g}"
                print(
                    f"| {name} | {gap:g} | {said} | {100 * f.false:.1f} % | {right} | {f.seeds:.1f} | {f.cell:.1f} |",
                    flush=True,
                )
    print("\n| g | 1 sd: right verdicts | seeds a cell | 2 sd: seeds a cell | 0, margin 1 sd: right verdicts |")
    print("|--:|--:|--:|--:|--:|")
    d = {gap: differences(None, gap, studies, seed=99) for gap in (0.0, 1.0, 2.0)}
    for g in (0.25, 0.5, 1.0, 2.0, 4.0):
        rows = {gap: grow(d[gap], gap, 1.0, lambda d, n, m, g=g: by_e_value(d, n, m, g)) for gap in d}
        one, two, none = rows[1.0], rows[2.0], rows[0.0]
        print(f"| {g:g} | {100 * one.right:.0f} % | {one.cell:.1f} | {two.cell:.1f} | {100 * none.right:.0f} % |")
    print("\n| looked at | seeds | false verdict of one null contrast by the t test at 5 % |\n|:--|--:|--:|")
    t = np.random.default_rng(7).standard_normal((10 * studies, 1, MOST))
    for most in (3, 10, 20):
        wrong = np.zeros(len(t), dtype=bool)
        for n in range(3, most + 1):
            s = math.sqrt(n) * t[:, 0, :n].mean(-1) / t[:, 0, :n].std(-1, ddof=1)
            wrong |= np.abs(s) >= stdtrit(n - 1, 1 - ALPHA / 2)
        print(f"| {'once' if most == 3 else 'at each number from 3'} | {most} | {100 * wrong.mean():.1f} % |")
    print("\n| law | seeds, looked at once | studies with a false verdict by two t tests at 5 % / 2 |\n|:--|--:|--:|")
    for row, (name, law) in enumerate({**LAWS, **NOT_PROMISED}.items()):
        once = grow(differences(law, 0.0, studies, seed=row), 0.0, None, by_t_test, fewest=13, most=13)
        print(f"| {name} | 13 | {100 * once.false:.1f} % |")
    print(f"\nFixed plan with 80 % power at 1 sd and level .05 / 2: {seeds_needed(1.0, 1.0, level=LEVEL)} seeds.")


if __name__ == "__main__":
    main()
