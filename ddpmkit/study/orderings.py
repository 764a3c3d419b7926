"""Orderings: what a study expects of two of its cells, stated in its file before there are results.

    [[ordering]]
    claim = "few steps: analytic below beta"    # a name of its own
    cell = { sigma = "analytic" }               # the side that is judged, by axis values
    baseline = { sigma = "beta" }               # the side that it is held against
    where = { sampling_steps = 10 }             # axis values of both
    metric = "nll"                              # nll, a metric of the study, or a column as tables call it
    expected = "lower"                          # what the cell's number is beside the baseline's: lower, higher, equal
    margin = 0.05                               # the gap that does not matter
    seeds = [0, 1, 2]                           # the train seeds that decide, whatever others are run
    n = 1000                                    # images that the number rests on; of nll it may be left out
    source = "Bao et al. 2022, Table 1"
    paper = [5.47, 6.99]                        # the published values of cell and baseline, where there are some

They are part of no stage and of no grid: with others the same numbers are judged otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import spec

KEYS = ("claim", "cell", "baseline", "where", "metric", "expected", "margin", "seeds", "n", "source", "paper")

Point = dict[str, Any]  # setting -> value


@dataclass(frozen=True)
class Ordering:
    """What is expected of two cells.

    Attributes:
        claim: in words; the ordering's name within its study.
        cell: the settings of the side that is judged.
        baseline: those of the side that it is held against.
        where: settings of both.
        metric: the column of the numbers, or ``nll``.
        expected: lower, higher or equal: what the cell's number is beside the baseline's.
        margin: the gap that does not matter.
        seeds: the train seeds that decide.
        n: images that each number rests on; None where any number will do.
        source: where the claim stands, with its table.
        paper: the published numbers of cell and baseline.
        known: how many of the results that decide were there when the ordering was; None until it is planned.
    """

    claim: str
    cell: Point
    baseline: Point
    where: Point
    metric: str
    expected: str
    margin: float
    seeds: tuple[int, ...]
    n: int | None
    source: str
    paper: tuple[float, float] | None = None
    known: int | None = None

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Self:
        """Read one back out of a plan."""
        paper = found.get("paper")
        return cls(**{**found, "seeds": tuple(found["seeds"]), "paper": None if paper is None else tuple(paper)})

    @property
    def sides(self) -> tuple[Point, Point]:
        """All that is said of the cell, and of the baseline."""
        return {**self.where, **self.cell}, {**self.where, **self.baseline}

    def json(self) -> dict[str, Any]:
        """The ordering as JSON values."""
        return asdict(self)


def completed(orderings: Sequence[Ordering], fixed: Point) -> tuple[Ordering, ...]:
    """Return the orderings of a grid as they are in one with more axes, where these had the ``fixed`` values."""
    return tuple(
        replace(o, where={**{k: v for k, v in fixed.items() if k not in o.cell.keys() & o.baseline.keys()}, **o.where})
        for o in orderings
    )


def merged(there: Sequence[Ordering], now: Sequence[Ordering]) -> tuple[Ordering, ...]:
    """Return the orderings that a study has with those that are asked for; one that is there stays as it was written.

    Raises:
        DdpmkitError: where one of the same claim says something else.
    """
    out = {o.claim: o for o in there}
    for one in now:
        old = out.setdefault(one.claim, one)
        if changed := [k for k in KEYS if getattr(old, k) != getattr(one, k)]:
            a, b = (as_text(getattr(o, changed[0])) for o in (old, one))
            raise DdpmkitError(
                f"ordering '{one.claim}' is there already, with {changed[0]} {a}, and now with {b}",
                "give the new one a claim of its own; what was stated before stays",
            )
    return tuple(out.values())


def as_text(value: Any) -> str:
    """Write a value, or a point, as one types it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={as_text(v)}" for k, v in value.items()) or "nothing"
    if isinstance(value, (list, tuple)):
        return ",".join(as_text(v) for v in value)
    return value if isinstance(value, str) else spec.encode(value)


def places(side: Point, cells: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return which cells have all settings of a side."""
    return [i for i, settings in enumerate(cells) if all(settings.get(k) == v for k, v in side.items())]
