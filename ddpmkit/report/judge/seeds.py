"""A metric's numbers by cell and train seed, sample seeds averaged inside and paired over those both sides have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Numbers:
    """One metric's numbers of one cell.

    Attributes:
        values: train seed -> mean over its sample seeds, where all of them have a number.
        samples: train seed -> sample seed -> number, for the same train seeds.
        short: train seeds that were left out because they have fewer sample seeds than most of this cell.
        sources: train seed -> sample seed -> the result that the number is of: its stage, where the records say it.
    """

    values: dict[int, float] = field(default_factory=dict)
    samples: dict[int, dict[int, float]] = field(default_factory=dict)
    short: tuple[int, ...] = ()
    sources: dict[int, dict[int, Hashable]] = field(default_factory=dict)


def numbers(frame: pd.DataFrame) -> dict[str, dict[str, Numbers]]:
    """Return metric -> cell -> numbers.

    A train seed counts when each of its samples has a number, and it has as many as most train seeds of its cell: a row
    that is missing altogether is no better than one that failed, for the mean over the others is another number.
    """
    out: dict[str, dict[str, Numbers]] = {}
    rows = frame.assign(value=pd.to_numeric(frame["value"]).astype("float64"))
    keys = ["metric", "cell", "train_seed"]
    groups = rows.groupby(keys)["value"].agg(["mean", "count", "size"]).reset_index()
    columns = (groups[k].tolist() for k in (*keys, "mean", "count", "size"))
    grouped: dict[tuple[str, str], dict[int, tuple[float, int]]] = {}
    for metric, cell, seed, mean, count, size in zip(*columns, strict=True):
        here = grouped.setdefault((str(metric), str(cell)), {})
        if count == size:
            here[int(seed)] = float(mean), int(size)
    for (metric, cell), by in grouped.items():
        usual = _usual(size for _, size in by.values())
        short = tuple(s for s, (_, size) in by.items() if size < usual)
        values = {s: mean for s, (mean, size) in by.items() if size >= usual}
        out.setdefault(metric, {})[cell] = Numbers(values, {s: {} for s in values}, short, {s: {} for s in values})
    columns = (rows[k].tolist() for k in (*keys, "sample_seed", "value", "stage"))
    for metric, cell, seed, sample, value, stage in zip(*columns, strict=True):
        one = out[str(metric)][str(cell)]
        if int(seed) in one.samples:
            one.samples[int(seed)][int(sample)] = float(value)
            # In a table made elsewhere a stage may be anything; only with the number too it is one result.
            known = isinstance(stage, str) and stage != ""
            one.sources[int(seed)][int(sample)] = (stage, float(value)) if known else (cell, int(sample))
    return out


def shared(by_cell: Mapping[str, Numbers], cells: Sequence[str]) -> dict[str, BySeed]:
    """Return the values of some cells by train seed, each averaged over the sample seeds that all of them have.

    Sample seeds are drawn from the same noise in every cell; a mean over others would add what the noise does to the
    difference. A train seed at which they share none is left out.
    """
    every = [by_cell.get(c, Numbers()) for c in cells]
    seeds = set.intersection(*(set(n.values) for n in every)) if every else set()
    if all(n.samples[s].keys() == every[0].samples[s].keys() for n in every for s in seeds):
        return {c: n.values for c, n in zip(cells, every, strict=True)}
    out: dict[str, BySeed] = {}
    both = {s: set.intersection(*(set(n.samples[s]) for n in every)) for s in sorted(seeds)}
    for cell, n in zip(cells, every, strict=True):
        out[cell] = {s: sum(n.samples[s][k] for k in sorted(ks)) / len(ks) for s, ks in both.items() if ks}
    return out


def _usual(sizes: Iterable[int]) -> int:
    """The most common of some numbers; the larger of two that are equally common."""
    counts = Counter(sizes)
    return max(counts, key=lambda n: (counts[n], n), default=0)
