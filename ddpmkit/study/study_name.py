"""A study's name when it was used before: by a grid that this one adds to or not, over other data or another plugin."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.study.config import Study, stated_grid
from ddpmkit.study.design import SHAPE
from ddpmkit.study.grids import IN_TRAINING, LISTS, SEEDS, There, flat, in_ranges, lacking, restarts, short, union
from ddpmkit.study.orderings import as_text
from ddpmkit.study.plan import Plan
from ddpmkit.study.settings import AXIS_ONLY, FIELDS, PLURALS
from ddpmkit.study.store import Store

ADDS = "; to add to it, name what it has too"
NAMED = 3  # differences that are spelled out; the rest are counted


class NameTakenError(DdpmkitError):
    """The name of a study is another grid's.

    Attributes:
        free: a name that can be used instead.
        asked: what was asked for, where the study that is ``there`` could have it too.
        there: what is there under the name.
    """

    def __init__(self, message: str, free: str, asked: Study | None = None, there: There | None = None) -> None:
        super().__init__(message, f"choose another --name, as {free}; stages that both need are shared all the same")
        self.free, self.asked, self.there = free, asked, there


def grown(study: Study, there: There | None, store: Store) -> Study:
    """Return a study with all that is there under its name; refuse one that would drop or change some of that.

    Args:
        study: What is asked for.
        there: What there is; None for nothing.
        store: Where it is.

    Raises:
        NameTakenError: with the flags that differ, and both their values.
    """
    if there is None:
        return study
    lacks = lacking(there.grid, study.grid(), study.unsaid)
    first, adds = {} if lacks else restarts(there.grid, study), _could_add(there.grid, lacks)
    if not lacks and not first:
        return union(there, study)
    if first:
        start = ",".join(f"{name}={as_text(value)}" for name, value in first.items())
        said = f"its baseline has {start}, one at a time would start from another; --baseline {start} keeps it"
    else:
        found = differences(there.grid, study.grid(), lacks)
        said = "; ".join(found[:NAMED]) + (f"; and {len(found) - NAMED} more" if len(found) > NAMED else "")
        said = f"{said or 'its plan is written in another way'}{ADDS if adds else ''}"
    raise NameTakenError(
        f"the name '{study.name}' is already used by another grid, in {store.study(study.name)}: {said}",
        # One whose folder is empty, or holds this very grid, so that the same advice holds the next time.
        next(n for n in _numbered(study.name) if _goes_on(study, store, n) or not store.study(n).exists()),
        *((study, there) if adds and not first else ()),
    )


def differences(there: Any, now: Mapping[str, Any], among: Sequence[str] | None = None) -> list[str]:
    """Return what differs between two grids, ``--train-seeds 0-2 there, 0-4 now``.

    Args:
        there: The grid of a plan that was read, perhaps of another version with other settings, perhaps damaged.
        now: The grid that was asked for.
        among: The settings and lists that are looked at; all by default.
    """
    old, new = flat(there), flat(now)
    out = []
    for key in dict.fromkeys((*LISTS, *new, *old)):
        a, b = (in_ranges(v) if v and key in SEEDS else v for v in (old.get(key), new.get(key)))
        if a == b or not old or (among is not None and key not in among):
            continue
        flag = _flag(key)
        if b is None:
            out.append(f"{key} {short(a)} there, no such setting now")
        elif a is None:
            out.append(f"{flag}{short(b)} now, no such setting there")
        else:
            out.append(f"{flag}{short(a)} there, {short(b)} now")
    return out


def moved_since(plan: Plan, store: Store) -> list[str]:
    """Say which results had other stages when the study was last run, and what of them has changed.

    A data set, a plugin or ddpmkit itself may have changed in between. The numbers follow it, and so does the report,
    which is made again; nobody should find that out from a table alone.
    """
    record = files.read_sealed(store.study(plan.study.name) / "plan.json") or {}
    before = {(r["cell"], r["train_seed"], r["sample_seed"]): r for r in record.get("results", [])}
    stages = {s["id"]: s for s in record.get("stages", [])}
    # With one more axis the same cell has a longer name.
    called = {files.canonical(c.get("settings")): c.get("label") for c in record.get("cells", [])}
    then = {c.label: called.get(files.canonical(vars(c.settings)), c.label) for c in plan.cells}
    moved, reasons = 0, list[str]()
    for result in plan.results:
        old = before.get((then[result.cell], result.train_seed, result.sample_seed))
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


def _flag(key: str) -> str:
    """What stands before a value on the command line."""
    if key == "only" or key not in (*LISTS, *SHAPE, *FIELDS):
        return f"{key} "
    if key in AXIS_ONLY:
        return f"--axis {key}="
    plural = {field: name for name, field in PLURALS.items()}
    return f"--{plural.get(key, key).replace('_', '-')} "


def _goes_on(study: Study, store: Store, name: str) -> bool:
    there = There.read(store, name)
    return there is not None and stated_grid(there.grid) == stated_grid(study.grid())


def _numbered(name: str) -> Iterator[str]:
    """The name with 2, 3 and so on behind it, no longer than a name may be."""
    return (f"{name[: 79 - len(str(n))]}-{n}" for n in itertools.count(2))


def _could_add(there: Any, lacks: Sequence[str]) -> bool:
    """Whether more values of what is lacking would be a study that has all that is there."""
    fixed = {"only", "dataset", *IN_TRAINING}
    known = {*LISTS, *FIELDS} - fixed
    return all(key in known and flat(there).get(key) for key in lacks)
