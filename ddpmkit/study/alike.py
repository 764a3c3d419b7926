"""Failures that are one failure: stages that ended with the same error at the same place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ddpmkit.text import one_line

if TYPE_CHECKING:
    from ddpmkit.study.plan import Plan
    from ddpmkit.study.store import Store


def signature(record: Mapping[str, Any]) -> str:
    """Return what two records of failed stages have in common where they failed alike: the trace, numbers left out.

    Addresses, seeds, steps and ids differ between stages that one mistake has broken.
    """
    text = str(record.get("traceback") or record.get("error") or "")
    return re.sub(r"0x[0-9a-fA-F]+|\b[0-9a-f]{8,}\b(?!\.[0-9])|(?<![A-Za-z_])[0-9]+(\.[0-9]+)?", "#", text)


def collapsed(problems: Iterable[tuple[str, str, str]]) -> list[str]:
    """Say how stages ended, (label, state, error) each, those that ended alike once; not those without an error."""
    alike: dict[tuple[str, str], list[str]] = {}
    said: dict[tuple[str, str], str] = {}
    for label, state, error in problems:
        if error:
            key = state, signature({"error": error})
            alike.setdefault(key, []).append(label)
            said.setdefault(key, error)
    return [
        f"{labels[0]}{f' and {len(labels) - 1} more' if len(labels) > 1 else ''}: {key[0]}: {said[key]}"
        for key, labels in alike.items()
    ]


class Alike:
    """Counts failures by their signature, and says when so many are alike that the rest would be too."""

    def __init__(self, plan: Plan, store: Store, most: int | None) -> None:
        """Count the failures of a run of a plan; ``most`` of one kind, None for any number."""
        self._plan, self._store, self._most = plan, store, most
        self._seen: dict[str, list[str]] = {}
        self.full = False

    def take(self, stage: str) -> str:
        """Take a stage that failed; return what to say where it is one too many, else nothing."""
        of = self._plan.stages[stage]
        record = self._store.status(of.kind, of.id)
        alike = self._seen.setdefault(signature(record), [])
        alike.append(of.label)
        if self.full or self._most is None or len(alike) < self._most:
            return ""
        self.full = True
        error = one_line(str(record.get("error", "")))
        return f"{len(alike)} stages failed alike, and the run stops: {error} ({', '.join(alike[:3])})"
