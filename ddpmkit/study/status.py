"""How far a study is, and who is at work on it; read from its records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddpmkit import files
from ddpmkit.study.claim import holder, told
from ddpmkit.study.store import Store


def read_status(folder: Path) -> dict[str, Any]:
    """Return the number of stages by kind and state, those that run and where, and those that ended badly."""
    plan, store = files.read_sealed(folder / "plan.json") or {}, Store(folder.parent.parent)
    kinds: dict[str, dict[str, int]] = {}
    problems, running = [], []
    for stage in plan["stages"]:
        record = store.status(stage["kind"], stage["id"])
        state = "done" if store.done(stage["kind"], stage["id"]) else record.get("state", "pending")
        counts = kinds.setdefault(stage["kind"], {})
        counts[state] = counts.get(state, 0) + 1
        folder_of_stage = store.folder(stage["kind"], stage["id"])
        if state == "running" and (claim := holder(folder_of_stage)) is not None:
            running.append({"label": stage["label"], "where": told(folder_of_stage, claim)})
        if state in ("failed", "diverged", "timed out"):
            problems.append({"label": stage["label"], "state": state, "error": record.get("error", "")})
    return {
        "study": plan["study"],
        "folder": str(folder),
        "kinds": kinds,
        "running": running,
        "problems": problems,
    }
