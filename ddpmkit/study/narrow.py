"""Which cells of a grid are asked for: ``--only`` and ``--exclude``, held against the cells; and how many may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.study.condition import Condition, Read, is_condition, read_condition
from ddpmkit.study.values import LARGEST

MOST_POINTS = 100_000  # of a grid, before conditions leave some out: they are looked at one by one

Asked = Sequence[tuple[str, Mapping[str, Any]]]  # the label and the settings of each cell


def refuse_large(cells: int, seeds: int, most: int | None, *, narrowed: bool = False) -> None:
    """Refuse a grid that asks for too many results; one that is ``narrowed`` down later may have more points.

    Args:
        cells: The number of cells, or of points.
        seeds: The number of train seeds times that of sample seeds.
        most: The most results; None for as many as asked.
        narrowed: Whether conditions will leave out some.

    Raises:
        DdpmkitError: with the number.
    """
    asked = cells * seeds
    if cells <= MOST_POINTS and (narrowed or most is None or asked <= most):
        return
    raise DdpmkitError(
        f"the grid asks for {asked} results, more than {LARGEST if most is None else most}",
        "split it into several studies, or take --design one-at-a-time"
        + ("" if most is None else "; --yes runs it as it is"),
    )


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
