"""A study's name when it was used before: by another grid, or by this one over other data or another plugin."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import spec
from ddpmkit.study.config import Study, stated_grid
from ddpmkit.study.plan import Plan
from ddpmkit.study.settings import AXIS_ONLY, FIELDS, PLURALS
from ddpmkit.study.store import Store

NAMED = 3  # differences that are spelled out; the rest are counted
LONGEST = 60  # characters of a value
SEEDS = ("train_seeds", "sample_seeds")
LISTS = (*SEEDS, "metrics", "features", "only")


class NameTakenError(DdpmkitError):
    """The name of a study is another grid's; ``free`` is one that can be used instead."""

    def __init__(self, message: str, free: str) -> None:
        super().__init__(message, f"choose another --name, as {free}; stages that both need are shared all the same")
        self.free = free


def check_name_is_free(study: Study, store: Store) -> None:
    """Refuse a study whose name is another grid's.

    Raises:
        NameTakenError: with the flags that differ, and both their values.
    """
    there = _grid(store, study.name)
    if there is None or stated_grid(there) == stated_grid(study.grid()):
        return
    found = differences(there, study.grid())
    said = "; ".join(found[:NAMED]) + (f"; and {len(found) - NAMED} more" if len(found) > NAMED else "")
    raise NameTakenError(
        f"the name '{study.name}' is already used by another grid, in {store.study(study.name)}: "
        f"{said or 'its plan is written in another way'}",
        # One whose folder is empty, or holds this very grid, so that the same advice holds the next time.
        next(n for n in _numbered(study.name) if _goes_on(study, store, n) or not store.study(n).exists()),
    )


def differences(there: Any, now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two grids, ``--train-seeds 0-2 there, 0-4 now``.

    Args:
        there: The grid of a plan that was read, perhaps of another version with other settings, perhaps damaged.
        now: The grid that was asked for.
    """
    old, new = _flat(there), _flat(now)
    out = []
    for key in dict.fromkeys((*LISTS, *new, *old)):
        a, b = old.get(key), new.get(key)
        if a == b or not old:
            continue
        flag = _flag(key)
        if b is None:
            out.append(f"{key} {_short(a)} there, no such setting now")
        elif a is None:
            out.append(f"{flag}{_short(b)} now, no such setting there")
        else:
            out.append(f"{flag}{_short(a)} there, {_short(b)} now")
    return out


def moved_since(plan: Plan, store: Store) -> list[str]:
    """Say which results of this very grid had other stages when it was last run, and what of them has changed.

    A data set, a plugin or ddpmkit itself may have changed in between. The numbers follow it, and so does the report,
    which is made again; nobody should find that out from a table alone.
    """
    record = files.read_sealed(store.study(plan.study.name) / "plan.json") or {}
    before = {(r["cell"], r["train_seed"], r["sample_seed"]): r for r in record.get("results", [])}
    stages = {s["id"]: s for s in record.get("stages", [])}
    moved, reasons = 0, list[str]()
    for result in plan.results:
        old = before.get((result.cell, result.train_seed, result.sample_seed))
        if old is None:
            continue
        pairs = [
            ("train", old["train"], result.train),
            ("sample", old["sample"], result.sample),
            ("nll", old["nll"], result.nll),
            *(("score", a[1], b[1]) for a, b in zip(old["scores"], result.scores, strict=False)),
        ]
        changed = [(kind, a, b) for kind, a, b in pairs if a and b and a != b]
        if changed:
            moved += 1
            kind, a, b = changed[0]
            reasons.append(_changed_parts(kind, stages.get(a, {}).get("spec", {}), plan.stages[b].spec.json()))
    if not moved:
        return []
    return [
        f"study '{plan.study.name}' was run before with another {', '.join(dict.fromkeys(reasons))}: {moved} of its "
        f"{len(plan.results)} results now rest on other stages and its report is made again; the old stages stay in "
        "the store"
    ]


def _changed_parts(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Which entries of a stage's spec differ, in words; where none does, ddpmkit computes it in another way now."""
    upstream = ("train", "fit", "sample", "draw", "ref")
    found = [k for k in dict.fromkeys((*new, *old)) if k not in upstream and new.get(k) != old.get(k)]
    words = {"data": "data set", "changed_by": "set of plugins that replace library parts"}
    named = []
    for key in found:
        part = new.get(key, old.get(key))
        component = isinstance(part, dict) and "name" in part
        named.append(f"{key} '{part['name']}'" if component else words.get(key, key))
    return " and ".join(named) or f"version of the {kind} stage"


def _flat(grid: Any) -> dict[str, list[str]]:
    """Every setting and list of a grid as texts; an axis has several, one that did not exist yet what it stood for."""
    if not isinstance(grid, Mapping):
        return {}
    settings, axes = ({} if not isinstance(grid.get(k), Mapping) else dict(grid[k]) for k in ("settings", "axes"))
    rest = {key: value for key, value in grid.items() if key not in ("settings", "axes")}
    before = {p.name: p.before for p in FIELDS.values() if p.before is not dataclasses.MISSING}
    out = {str(key): _texts(value) for key, value in {**before, **settings, **axes, **rest}.items()}
    out |= {key: _seeds(grid.get(key)) if key in SEEDS else _texts(grid.get(key, [])) for key in LISTS}
    return {**out, "only": out["only"] or ["all cells"]}


def _texts(value: Any) -> list[str]:
    return [v if isinstance(v, str) else spec.encode(v) for v in (value if isinstance(value, list) else [value])]


def _seeds(value: Any) -> list[str]:
    """Seeds as one types them: 0, 1, 2, 5 is 0-2, 5."""
    if not (isinstance(value, list) and all(isinstance(v, int) for v in value)):
        return _texts(value)
    runs = [[s for _, s in run] for _, run in itertools.groupby(enumerate(value), lambda pair: pair[1] - pair[0])]
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]


def _flag(key: str) -> str:
    """What stands before a value on the command line."""
    if key == "only" or key not in (*LISTS, *FIELDS):
        return f"{key} "
    if key in AXIS_ONLY:
        return f"--axis {key}="
    plural = {field: name for name, field in PLURALS.items()}
    return f"--{plural.get(key, key).replace('_', '-')} "


def _short(values: Sequence[str] | None) -> str:
    text = ",".join(values or ())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]}.. ({len(values or ())} values)"


def _grid(store: Store, name: str) -> dict[str, Any] | None:
    """The grid of the study of that name; None where there is none, or its plan is damaged and will be made again."""
    grid = (files.read_sealed(store.study(name) / "plan.json") or {}).get("grid")
    return grid if isinstance(grid, dict) and isinstance(grid.get("settings", {}), dict) else None


def _goes_on(study: Study, store: Store, name: str) -> bool:
    grid = _grid(store, name)
    return grid is not None and stated_grid(grid) == stated_grid(study.grid())


def _numbered(name: str) -> Iterator[str]:
    """The name with 2, 3 and so on behind it, no longer than a name may be."""
    return (f"{name[: 79 - len(str(n))]}-{n}" for n in itertools.count(2))
