"""Effects of whole axes over matched cells, and interactions as differences of differences (Fisher 1935)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ddpmkit.statistics.contrasts import Contrast, Pairs

Point = Mapping[str, str]


@dataclass(frozen=True)
class Effect:
    """What one level of an axis does against another, averaged over the cells that agree on all other axes.

    Attributes:
        axis: the axis.
        level: the level that is judged.
        reference: the level that it is held against.
        matched: number of pairs of cells.
        left_out: pairs that exist in the grid but have no number, or numbers that are not comparable.
        contrast: the difference, paired by seed.
    """

    axis: str
    level: str
    reference: str
    matched: int
    left_out: int
    contrast: Contrast


@dataclass(frozen=True)
class Interaction:
    """How much the effect of one axis depends on another: a difference of differences, paired by seed.

    Attributes:
        axes: the two axes.
        levels: the level of each that is judged.
        references: the level of each that it is held against.
        matched: number of squares of four cells.
        contrast: (effect of the first axis at the second's level) - (the same at the second's reference).
    """

    axes: tuple[str, str]
    levels: tuple[str, str]
    references: tuple[str, str]
    matched: int
    contrast: Contrast


@dataclass(frozen=True)
class Matched:
    """An effect or interaction before it is tested.

    Attributes:
        axes: one axis, or two.
        levels: their levels.
        references: what they are held against.
        cells: the matched groups of cells: (at the level, at the reference), or four cells for an interaction.
        left_out: the groups without comparable numbers.
        pairs: both sides by seed, each averaged over the groups.
    """

    axes: tuple[str, ...]
    levels: tuple[str, ...]
    references: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    left_out: tuple[tuple[str, ...], ...]
    pairs: Pairs


def effects(
    points: Mapping[str, Point],
    values: Mapping[str, Mapping[int, float]],
    reference: str,
    *,
    broken: frozenset[str] = frozenset(),
    comparable: Callable[[Sequence[str]], bool] = lambda cells: True,
    shared: Callable[[Sequence[str]], Mapping[str, Mapping[int, float]]] | None = None,
) -> list[Matched]:
    """Hold each level of each axis against the reference cell's level, over all cells that agree elsewhere.

    A group of cells that lacks numbers is left out; a seed counts when every cell of the groups that are left has it,
    so that each seed's average is over the same cells.

    Args:
        points: cell -> axis -> level.
        values: cell -> train seed -> value of one metric.
        reference: The cell whose levels are the references.
        broken: Cells with a diverged or failed seed.
        comparable: Whether the numbers of some cells mean the same.
        shared: What to hold some cells against each other by, cell -> train seed -> value: their numbers over the
            sample seeds that all of them have. Their values by default.
    """
    index = _index(points)
    out = []
    for axis, level in _levels(points, reference) if index else ():
        base = points[reference][axis]
        groups = []
        for cell, point in points.items():
            if point.get(axis) == level:
                other = index.get(tuple(sorted({**point, axis: base}.items())))
                if other is not None:
                    groups.append((cell, other))
        out.append(_matched((axis,), (level,), (base,), groups, values, broken, comparable, shared))
    return [m for m in out if m.cells or m.left_out]


def interactions(
    points: Mapping[str, Point],
    values: Mapping[str, Mapping[int, float]],
    reference: str,
    *,
    broken: frozenset[str] = frozenset(),
    comparable: Callable[[Sequence[str]], bool] = lambda cells: True,
    shared: Callable[[Sequence[str]], Mapping[str, Mapping[int, float]]] | None = None,
) -> list[Matched]:
    """Hold the effect of each axis at each level of another against the same effect at the reference level.

    Only squares of four cells can show it; a design that varies one axis at a time has none. Arguments as
    :func:`effects`.
    """
    index = _index(points)
    out = []
    for (a, level_a), (b, level_b) in itertools.combinations(_levels(points, reference), 2):
        if a == b or not index:
            continue
        base_a, base_b = points[reference][a], points[reference][b]
        groups = []
        for cell, point in points.items():
            if point.get(a) == level_a and point.get(b) == level_b:
                corners = ((base_a, level_b), (level_a, base_b), (base_a, base_b))
                found = [index.get(tuple(sorted({**point, a: x, b: y}.items()))) for x, y in corners]
                square = tuple(c for c in (cell, *found) if c is not None)
                if len(square) == 4:
                    groups.append(square)
        out.append(_matched((a, b), (level_a, level_b), (base_a, base_b), groups, values, broken, comparable, shared))
    return [m for m in out if m.cells or m.left_out]


def _index(points: Mapping[str, Point]) -> dict[tuple[tuple[str, str], ...], str]:
    """Return point -> cell; empty where two cells stand at one point, for then something else tells them apart."""
    index = {tuple(sorted(point.items())): cell for cell, point in points.items()}
    return index if len(index) == len(points) else {}


def _levels(points: Mapping[str, Point], reference: str) -> Iterator[tuple[str, str]]:
    """Yield (axis, level) for every level that is not the reference's, in the order of the cells."""
    for axis, base in points[reference].items():
        levels = dict.fromkeys(p[axis] for p in points.values() if axis in p)
        yield from ((axis, level) for level in levels if level != base)


def _matched(
    axes: tuple[str, ...],
    levels: tuple[str, ...],
    references: tuple[str, ...],
    groups: Sequence[tuple[str, ...]],
    values: Mapping[str, Mapping[int, float]],
    broken: frozenset[str],
    comparable: Callable[[Sequence[str]], bool],
    shared: Callable[[Sequence[str]], Mapping[str, Mapping[int, float]]] | None,
) -> Matched:
    kept = tuple(g for g in groups if all(values.get(c) for c in g) and comparable(g))
    found = [(g, values if shared is None else shared(g)) for g in kept]
    seeds: set[int] = set.intersection(*(set(v[c]) for g, v in found for c in g)) if kept else set()
    half = len(axes)  # the first half of a group stands at the level, the second at the reference
    cell = {s: fmean(_side(g[:half], v, s) for g, v in found) for s in seeds}
    base = {s: fmean(_side(g[half:], v, s) for g, v in found) for s in seeds}
    # A broken cell counts against the side it stands on, also where it was left out for want of any number.
    cell_whole = not any(c in broken for g in groups for c in g[:half])
    base_whole = not any(c in broken for g in groups for c in g[half:])
    # An effect is small beside the numbers that it is the difference of, and so is its rounding.
    scale = max((abs(v[c][s]) for s in seeds for g, v in found for c in g), default=0.0)
    pairs = replace(Pairs.match(cell, base, cell_whole, base_whole), scale=scale)
    return Matched(axes, levels, references, kept, tuple(g for g in groups if g not in kept), pairs)


def _side(cells: Sequence[str], values: Mapping[str, Mapping[int, float]], seed: int) -> float:
    """The value of a cell, or the effect between two."""
    first, *second = (values[c][seed] for c in cells)
    return first - second[0] if second else first
