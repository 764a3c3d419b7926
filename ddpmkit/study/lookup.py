"""A stage by the first digits of its id: what it is, who needs it, how it ended; and what made two ids differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.study.claim import holder, told
from ddpmkit.study.needs import Key, Needs, needs_of
from ddpmkit.study.stages import STAGE_KINDS
from ddpmkit.study.store import Store

SHOWN = 12  # digits of an id that are shown
ABSENT = "-"  # what stands where the one of two specs has no such field


@dataclass(frozen=True)
class Found:
    """A stage, as its own files and the plans that need it tell of it.

    Attributes:
        kind: what it does.
        id: its id.
        spec: what the id is made of.
        version: that of its kind; None where only a plan knows the stage.
        needs: (kind, id) of the stages that it reads.
        record: what a plan says of it; empty where no study needs it.
    """

    kind: str
    id: str
    spec: dict[str, Any]
    version: int | None
    needs: tuple[Key, ...]
    record: dict[str, Any]


def _find(store: Store, needs: Needs, text: str) -> Found:
    """Return the stage whose id begins with ``text``; it is in the store, or a study needs it."""
    planned = needs.stages()
    known = [*planned, *((kind, stage) for kind in STAGE_KINDS for stage in store.stages(kind))]
    found = sorted({key for key in known if text and key[1].startswith(text.lower())})
    if len(found) > 1:
        some = ", ".join(f"{kind} {stage[:SHOWN]}" for kind, stage in found[:4])
        raise DdpmkitError(f"{len(found)} stages have an id that begins with '{text}': {some}", "give more digits")
    if not found:
        hint = "ids stand in a study's plan.json, those of trainings in its results.csv too"
        raise DdpmkitError(f"no stage in '{store.out}' has an id that begins with '{text}'", hint)
    return _read(store, planned, found[0])


def _read(store: Store, planned: Mapping[Key, dict[str, Any]], key: Key) -> Found:
    kind, stage = key
    record = planned.get(key, {})
    named = files.read_json(store.folder(kind, stage) / "spec.json")
    whole = isinstance(named, dict) and files.sha256(files.canonical(named).encode()) == stage
    if not whole and not record:
        path = store.folder(kind, stage) / "spec.json"
        raise DdpmkitError(f"'{path}' is damaged, and no readable study needs that stage", "ddpmkit gc takes it away")
    spec: dict[str, Any] = named["spec"] if whole else record["spec"]
    version = named["version"] if whole else None
    needs = tuple((k, i) for k, i in record["needs"]) if record else STAGE_KINDS[kind].from_json(spec).needs
    return Found(kind, stage, spec, version, needs, record)


def why(store: Store, text: str) -> dict[str, Any]:
    """Return all that is known of a stage as JSON values: its state, which studies and cells need it, upstream, spec.

    ``unreadable`` are studies whose plan is damaged, so that nobody knows whether they need it.

    Raises:
        DdpmkitError: when there is no such stage, or more than one.
    """
    needs = needs_of(store)
    planned = needs.stages()
    found = _find(store, needs, text)
    folder = store.folder(found.kind, found.id)
    status = store.status(found.kind, found.id)
    claim = holder(folder)
    return {
        "kind": found.kind,
        "id": found.id,
        "label": found.record.get("label") or status.get("label", ""),
        "state": _state(store, (found.kind, found.id)),
        "error": status.get("error", ""),
        "at_work": None if claim is None else told(folder, claim),
        "seconds": status.get("seconds"),
        "attempts": status.get("attempt", 0),
        "folder": str(folder),
        "needed_by": [
            {"study": plan["study"], "folder": str(at), "cells": cells}
            for at, plan in needs.by_study.items()
            if (cells := cells_of(plan, found.id)) is not None
        ],
        "unreadable": [str(folder) for folder in needs.damaged],
        "upstream": [
            {
                "kind": kind,
                "id": stage,
                "label": planned.get((kind, stage), {}).get("label") or store.status(kind, stage).get("label", ""),
                "state": _state(store, (kind, stage)),
            }
            for kind, stage in found.needs
        ],
        "version": found.version,
        "spec": found.spec,
    }


def cells_of(plan: Mapping[str, Any], stage: str) -> list[str] | None:
    """Return the labels of the cells whose results rest on a stage; None where the study does not need it."""
    needs = {s["id"]: [i for _, i in s["needs"]] for s in plan["stages"]}
    if stage not in needs:
        return None
    rests: dict[str, bool] = {stage: True}

    def on(id: str) -> bool:
        if id not in rests:
            rests[id] = any(on(need) for need in needs.get(id, ()))
        return rests[id]

    cells = (r["cell"] for r in plan["results"] if any(on(id) for id in result_stages(r)))
    return list(dict.fromkeys(cells))


def result_stages(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ids of the stages that a result names."""
    yield from (result[key] for key in ("train", "sample", "nll", "nll_train") if result.get(key))
    for _, score, ref in result["scores"]:
        yield from (score, ref)


def _state(store: Store, key: Key) -> str:
    """How a stage stands: done, running, or as its status says; pending where it never ran."""
    return "done" if store.done(*key) else str(store.status(*key).get("state", "pending"))


def differences(store: Store, a: str, b: str) -> list[tuple[str, str, str]]:
    """Return what made the ids of two stages of one kind differ: (field, value of a, value of b).

    Where they read different stages, what makes those differ follows, its fields behind the name of the one that reads.

    Raises:
        DdpmkitError: when there is no such stage, or they are of two kinds.
    """
    needs = needs_of(store)
    first, second = _find(store, needs, a), _find(store, needs, b)
    if first.kind != second.kind:
        raise DdpmkitError(
            f"{first.id[:SHOWN]} is a {first.kind} stage and {second.id[:SHOWN]} a {second.kind} stage",
            "compare two stages of one kind; ddpmkit why ID says what a stage reads",
        )
    return list(_differences(store, needs.stages(), first, second, ""))


def _differences(
    store: Store, planned: Mapping[Key, dict[str, Any]], a: Found, b: Found, before: str
) -> Iterator[tuple[str, str, str]]:
    if a.version != b.version and None not in (a.version, b.version):
        yield f"{before}version", str(a.version), str(b.version)
    one, other = dict(flat(a.spec)), dict(flat(b.spec))
    read = {i: (kind, i) for found in (a, b) for kind, i in found.needs}
    for key in dict.fromkeys((*one, *other)):
        x, y = one.get(key, ABSENT), other.get(key, ABSENT)
        if x == y or ((x, y) in (("{}", ABSENT), (ABSENT, "{}")) and _within(key, one, other)):
            continue
        yield f"{before}{key}", x, y
        if x in read and y in read:
            try:
                pair = _read(store, planned, read[x]), _read(store, planned, read[y])
            except DdpmkitError:  # what a damaged stage was made of is not known, and that it is another one is said
                continue
            yield from _differences(store, planned, *pair, f"{before}{key}.")


def _within(key: str, *specs: Mapping[str, str]) -> bool:
    """Whether fields of a record are told one by one, so that an empty one on the other side says nothing more."""
    return any(name.startswith(f"{key}.") for spec in specs for name in spec)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every field of a spec by its path, ``schedule.params.s``, and its value as text."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from flat(part, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        for i, part in enumerate(value):
            yield from flat(part, f"{name}[{i}]")
    else:
        yield name, value if isinstance(value, str) else files.canonical(value)


def short(text: str, width: int = 32) -> str:
    """Return a value as a terminal has room for it: the first digits of a hash, a long text's start and its hash."""
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text[:SHOWN]
    if len(text) <= width:
        return text
    return f"{text[: width - 10]}..{files.sha256(text.encode())[:8]}"  # two that begin alike still differ
