"""From which step the trainings of a study went on that did not begin at their first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddpmkit.study.store import Store
from ddpmkit.study.went_on import told, went_on


def gone_on(plan: Mapping[str, Any], store: Store) -> list[str]:
    """Return the line of a report; none where all began at their first step."""
    trainings = {r["train"] for r in plan["results"]}
    steps = {
        s["id"]: s["spec"]["steps"] for s in plan["stages"] if s["id"] in trainings and "steps" in s.get("spec", {})
    }
    counts = went_on(store, steps)
    return [f"Trainings that went on from what another one had left: {told(counts)}"] if counts else []
