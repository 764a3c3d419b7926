"""Which cells of a grid are asked for: ``--only`` and ``--exclude``, held against the cells; and how many may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.study.condition import Condition, Read, is_condition, read_condition

MOST_POINTS = 100_000  # of a grid, before conditions leave some out: they are looked at one by one, whoever says --yes

Asked = Sequence[tuple[str, Mapping[str, Any]]]  # the label and the settings of each cell


def refuse_large(points: int, results: int, most: int | None, *, narrowed: bool = False) -> None:
    """Refuse a grid of too many points or results; one that is ``narrowed`` down later may have more of the first.

    Args:
        points: The number of points, or of cells that are left.
        results: That of their results, one for each train seed and sample seed.
        most: The most results; None for as many as asked.
        narrowed: Whether conditions will leave out some.

    Raises:
        DdpmkitError: with the number.
    """
    split = "split it into several studies, or take --design one-at-a-time"
    if points > MOST_POINTS:
        raise DdpmkitError(f"the grid has {points} points, more than {MOST_POINTS}", split)
    if not narrowed and most is not None and results > most:
        raise DdpmkitError(f"the grid asks for {results} results, more than {most}", f"{split}; --yes runs it as it is")


def read_chosen(flag: str, texts: Sequence[str], cells: Asked, read: Read) -> tuple[str, ...]:
    """Return what a flag chooses by, labels and conditions, each in one form.

    Raises:
        DdpmkitError: for a text that is none, or that no cell is or satisfies.
    """
    labels, out = [label for label, _ in cells], []
    for text in texts:
        if text in labels:
            out.append(text)
        elif is_condition(text):
            out.append(str(_of_some(read_condition(text, read, flag=flag), cells, flag)))
        else:
            raise DdpmkitError(
                f"the grid has no cell '{text}'{did_you_mean(text, labels)}",
                f"ddpmkit ablate -n lists the labels; a condition is {flag} 'sigma=beta'",
            )
    return tuple(dict.fromkeys(out))


def _of_some(condition: Condition, cells: Asked, flag: str) -> Condition:
    """Return a condition that some cell satisfies."""
    if any(condition.holds(settings) for _, settings in cells):
        return condition
    levels = {t.field: dict.fromkeys(str(settings[t.field]) for _, settings in cells) for t in condition.terms}
    there = "; ".join(f"{field} {', '.join(values)}" for field, values in levels.items())
    raise DdpmkitError(f"{flag} '{condition}': the grid has no such cell", f"it has {there}")
