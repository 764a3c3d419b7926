"""When a study grew, and by what: the records beside its plan.

    studies/<name>/growth.json   {"grown": [{"when": .., "what": [..], "seeds_before": [..], "seeds_after": [..]}, ..]}

A study that was given more after it had a plan is marked by them: whoever added train seeds may have looked first, and
a test for a number of seeds that was set beforehand does not hold then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddpmkit import files

NAME = "growth.json"


@dataclass(frozen=True)
class Growth:
    """One growth of a study.

    Attributes:
        when: the time, ISO 8601 in UTC; empty where a record can't be read.
        what: what was added, a line each: ``train seeds 3-4``, ``schedules sigmoid``.
        seeds_before: the train seeds until then.
        seeds_after: the train seeds from then on; the same where other things were added.
    """

    when: str
    what: tuple[str, ...]
    seeds_before: tuple[int, ...]
    seeds_after: tuple[int, ...]


UNREADABLE = Growth("", ("its records can't be read",), (), ())


def of(study: str | Path) -> tuple[Growth, ...]:
    """Return the growths of the study in a folder, oldest first; none for one that is as it was first planned.

    A damaged file, or one that the plan knows of and is lost, is one growth of which nothing is known: the mark stays.
    """
    path = Path(study) / NAME
    if not path.is_file():
        return (UNREADABLE,) if lost(study) else ()
    grown = (files.read_sealed(path) or {}).get("grown")
    if not isinstance(grown, list):
        return (UNREADABLE,)
    return tuple(_read(record) for record in grown)


def lost(study: str | Path) -> bool:
    """Whether a study has grown, as its plan says, and the records of that are not there."""
    plan = files.read_sealed(Path(study) / "plan.json") or {}
    return bool(plan.get("grown")) and not (Path(study) / NAME).is_file()


def add(study: Path, what: Iterable[str], before: Iterable[int], after: Iterable[int]) -> Growth:
    """Write down that a study grows now, and return the record. One process at a time: see study/enter.py.

    Where the last record says the same, a process was stopped between it and the plan, and it is that growth.
    """
    now = Growth(datetime.now(UTC).isoformat(timespec="seconds"), tuple(what), tuple(before), tuple(after))
    grown = [*of(study)]
    last = grown.pop() if grown else None
    if last is not None and asdict(last) | {"when": ""} != asdict(now) | {"when": ""}:
        grown.append(last)
    grown.append(now)
    files.write_sealed(study / NAME, {"grown": [_json(record) for record in grown]})
    return now


def told(study: Path) -> list[str]:
    """Say when a study grew, a line each, for a report."""
    return [_told(record) for record in of(study)]


def _told(record: Growth) -> str:
    if not record.when:
        return f"The study grew, and {'; '.join(record.what)}"
    return f"The study grew on {record.when.replace('T', ' ').removesuffix('+00:00')} UTC by {'; '.join(record.what)}"


def _json(record: Growth) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(record).items()}


def _read(record: Any) -> Growth:
    try:
        when, what = str(record["when"]), tuple(str(line) for line in record["what"])
        before, after = (tuple(int(s) for s in record[f"seeds_{key}"]) for key in ("before", "after"))
    except (KeyError, TypeError, ValueError):
        return UNREADABLE
    return Growth(when, what, before, after)
