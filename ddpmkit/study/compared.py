"""Two records of one stage beside each other: how far apart their numbers are, and where most."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ddpmkit.study.records import RefRecord

FLOOR = 1e-3  # of what a record's number is held to: below it, and below its standard error, nobody reads a number
ERRORS = ("se", "standard_error")  # under which names the standard error stands beside a number

Found = tuple[bool, float, str]  # whether it is the same, the largest difference, and where that is


def numbers(then: Any, now: Any, tolerance: float, floor: float = FLOOR) -> Found:
    """Compare two records: a number a within tolerance * max(|a|, error, floor), all that is none exactly.

    Args:
        then: As it is stored.
        now: As it was computed again.
        tolerance: A share.
        floor: What a number near 0 is held to, in its own unit. With 0 the standard error beside a number counts no
            more than the floor does: each is held to itself.
    """
    worst, where = 0.0, ""
    if left := newer(then, now):
        now = {name: value for name, value in now.items() if name not in left}
    for path, a, b, error in _pairs(then, now):
        off = 0.0 if a == b or _known_since(path, a, b) else math.inf
        if _is_number(a) and _is_number(b) and a != b and (scale := max(abs(a), error if floor else 0.0, floor)):
            off = abs(a - b) / scale
        if not math.isfinite(off):
            off = math.inf
        if off > worst:
            worst, where = off, f"{path}: {a!r} stored, {b!r} now"
    return worst <= tolerance, worst, where


def newer(then: Any, now: Any) -> list[str]:
    """Return the fields that a stored record lacks since it is older than they are: what it does say is compared."""
    both = isinstance(then, dict) and isinstance(now, dict)
    return [name for name in RefRecord.later if name in now and name not in then] if both else []


def _known_since(path: str, then: Any, now: Any) -> bool:
    """Whether an older record says an error of 0 where none is known, or lacks a note of today."""
    field = path.rpartition(".")[2]
    if field == "notes" and isinstance(then, list) and isinstance(now, list):
        return all(note in now for note in then)
    return (field == "note" and then is None) or (field in ERRORS and then == 0 and now is None)


def _pairs(then: Any, now: Any, path: str = "", error: float = 0.0) -> Iterator[tuple[str, Any, Any, float]]:
    """Both values at each place, with the standard error that stands beside them there or further out."""
    if isinstance(then, dict) and isinstance(now, dict):
        error = next((abs(then[key]) for key in ERRORS if _is_number(then.get(key))), error)
        for key in sorted({*then, *now}):
            yield from _pairs(then.get(key), now.get(key), f"{path}.{key}" if path else str(key), error)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, (a, b) in enumerate(zip(then, now, strict=True)):
            yield from _pairs(a, b, f"{path}[{i}]", error)
    else:
        yield path, then, now, error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
