"""The studies of a results folder: how far each is and what it takes; renamed, thrown away, taken back."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin import spec
from ddpmkit.study.claim import ALIVE, Claim, claimed
from ddpmkit.study.naming import check_name
from ddpmkit.study.needs import Key, needs_of
from ddpmkit.study.presence import alone, collecting, let_go_of_claims, refuse_running, runs_of
from ddpmkit.study.sharing import remember
from ddpmkit.study.store import Store, plans
from ddpmkit.study.trash import Batch, batches, new_batch, size_of, take_back, throw_away
from ddpmkit.study.values import as_toml

DAMAGED = "its plan is damaged: run it again, or ddpmkit studies rm"


@dataclass(frozen=True)
class Listed:
    """A study, as a list of studies says it.

    Attributes:
        name: its name.
        when: when it was last run, seconds since 1970.
        cells: their number.
        results: cells by seeds.
        done: stages that are done.
        stages: all of them.
        running: whether a run is at work on it.
        size: bytes of its stages and its own folder.
        alone: bytes of that which no other study needs.
        question: what it varies, on what, over how many seeds.
    """

    name: str
    when: float
    cells: int = 0
    results: int = 0
    done: int = 0
    stages: int = 0
    running: bool = False
    size: int = 0
    alone: int = 0
    question: str = DAMAGED


def list_studies(store: Store) -> list[Listed]:
    """Return the studies of a results folder, the one that was run last first."""
    remember(store)
    needs = needs_of(store)
    keys = {folder: {(s["kind"], s["id"]) for s in plan["stages"]} for folder, plan in needs.by_study.items()}
    asked: Counter[Key] = Counter(key for found in keys.values() for key in found)
    sizes = {key: size_of(store.folder(*key)) for key in asked}
    done = {key for key in asked if store.done(*key)}
    out = []
    for name, plan in plans(store.out).items():
        folder = store.study(name)
        when = (folder / "plan.json").stat().st_mtime
        if plan is None:
            out.append(Listed(name, when))
            continue
        own = {(s["kind"], s["id"]) for s in plan["stages"]}
        files_of_study = size_of(folder.resolve())
        out.append(
            Listed(
                name=name,
                when=when,
                cells=len(plan["cells"]),
                results=len(plan["results"]),
                done=len(own & done),
                stages=len(own),
                running=bool(runs_of(folder)),
                size=files_of_study + sum(sizes.get(key, 0) for key in own),
                alone=files_of_study + sum(sizes.get(key, 0) for key in own if asked[key] == 1),
                question=question(plan),
            )
        )
    return sorted(out, key=lambda found: found.when, reverse=True)


def question(plan: dict[str, Any]) -> str:
    """Say what a study varies, on what data, over how many seeds, in one line."""
    grid = plan.get("grid", {})
    axes = grid.get("axes", {})
    varied = "; ".join(f"{axis} {', '.join(_text(v) for v in values)}" for axis, values in axes.items())
    cells = [str(c["label"]) for c in plan["cells"]]
    only = f"{varied or ', '.join(cells)}" + (f" (only {', '.join(cells)})" if grid.get("only") else "")
    seeds = len(grid.get("train_seeds", ()))
    dataset = grid.get("settings", {}).get("dataset", "")
    return f"{only}; {dataset}; {seeds} train seed{'s' * (seeds != 1)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else spec.encode(value)


def rename_study(store: Store, old: str, new: str) -> Path:
    """Give a study another name and return its folder; its report still has to be written under that name.

    Raises:
        DdpmkitError: when there is no such study, it is running, or the name is taken or no name.
    """
    target = store.study(check_name(new))
    with _in_peace(store, old) as folder:
        plan = plans(store.out)[old]
        if plan is None:
            raise DdpmkitError(f"the plan of study '{old}' is damaged", "run the study again; its stages are kept")
        taken = DdpmkitError(f"there is a '{target}' already", f"choose another name than '{new}'")
        if target.exists() or target.is_symlink():
            raise taken
        try:
            os.rename(folder, target)
        except OSError:
            if target.exists():  # it came meanwhile
                raise taken from None
            raise
        try:  # our claim has moved with it, and the record of a grid that has grown, and whatever else lies there
            files.write_sealed(target / "plan.json", {**plan, "study": new})
            toml = target / "study.toml"
            with contextlib.suppress(FileNotFoundError):
                lines = toml.read_text(encoding="utf-8").splitlines()
                named = [f"name = {as_toml(new)}" if line.startswith("name = ") else line for line in lines]
                files.write_text(toml, "\n".join(named) + "\n")
        finally:
            let_go_of_claims(target)
    return target


def remove_study(store: Store, name: str) -> Path:
    """Move a study to the trash and return its place there; its stages stay until a collection takes them.

    Raises:
        DdpmkitError: when there is no such study, or it is running.
    """
    with _in_peace(store, name) as folder:
        there = throw_away(folder, folder.parent, new_batch())
        let_go_of_claims(there)
    return there


def restore_study(store: Store, name: str) -> tuple[Path, int, int]:
    """Take a study back out of the trash, and of its stages those that lie there too.

    Returns its folder, the number of stages that are back, and of those that lie in the trash still: in their places
    somebody is at work, or what was begun there is as far as what was thrown away.

    Raises:
        DdpmkitError: when there is none of that name in the trash, one is there again, or a collection is at work.
    """
    home, run = store.out / "studies", secrets.token_hex(8)
    found = [b for b in batches(home) if (b.folder / name / "plan.json").is_file()]
    if not found:
        names = sorted({p.name for b in batches(home) for p in b.folder.iterdir()})
        raise _not_thrown(store, name, names)
    with collecting(store, run, f"ddpmkit studies restore {name}"):  # or one empties that trash meanwhile
        if not take_back(found[-1].folder / name, found[-1]):
            raise DdpmkitError(f"there is a study '{name}' again", f"ddpmkit studies rename {name} ANOTHER, and again")
        plan = plans(store.out)[name] or {"stages": []}
        thrown = {kind: batches(store.root / kind) for kind in {s["kind"] for s in plan["stages"]}}
        aside, back, left = new_batch(), 0, 0
        for stage in plan["stages"]:
            key = (stage["kind"], stage["id"])
            places = [(b.folder / key[1][:2] / key[1], b) for b in reversed(thrown[key[0]])]
            places = sorted((p for p in places if p[0].is_dir()), key=lambda p: not _finished(p[0]))  # the latest first
            if places and not store.done(*key):
                done = _stage_back(store, key, *places[0], aside, run)
                back, left = back + done, left + (not done)
    return store.study(name), back, left


def _not_thrown(store: Store, name: str, names: list[str]) -> DdpmkitError:
    """What to say of a study that can't be taken back, for it does not lie in the trash."""
    where = f"the trash{did_you_mean(name, names)}" if names else "the trash, which is empty"
    if name in plans(store.out):
        hint = f"it is there and was not thrown away: ddpmkit report {name}"
    elif names:
        hint = f"in the trash: {', '.join(names)}"
    else:
        hint = "what was deleted is computed again by the command that made it: ddpmkit ablate .. --name " + name
    return DdpmkitError(f"there is no study '{name}' in {where}", hint)


def _finished(folder: Path) -> bool:
    return files.verify_folder(folder / "out", contents=False) is not None


def _stage_back(store: Store, key: Key, place: Path, batch: Batch, aside: str, run: str) -> bool:
    """Take a stage back; what was begun in its place goes to the trash where nobody holds it and it is not as far."""
    folder = store.folder(*key)
    if folder.exists():
        with claimed(folder, run) as held:
            if isinstance(held, Claim) or not (_finished(place) or _empty(folder)):
                return False
            let_go_of_claims(throw_away(folder, store.root / key[0], aside))
    return take_back(place, batch)


def _empty(folder: Path) -> bool:
    """Whether a stage's folder holds nothing but claims: whoever made it had not begun."""
    return all(path.name == ALIVE or path.name.startswith("claim") for path in folder.iterdir())


@contextlib.contextmanager
def _in_peace(store: Store, name: str) -> Iterator[Path]:
    """Claim the folder of a study that nobody is at work on, so that nobody begins to inside the block."""
    folder = _of_name(store, name)
    try:
        with alone(folder):
            _of_name(store, name)  # another process may have moved it while we waited
            refuse_running(folder)
            yield folder
    finally:
        with contextlib.suppress(OSError):  # a claim on what is gone makes an empty folder
            folder.rmdir()


def _of_name(store: Store, name: str) -> Path:
    """The folder of a study by its name; a path is no name, since what lies elsewhere is not ours to move."""
    names = list(plans(store.out))
    if name not in names:
        hint = f"studies there: {', '.join(names)}" if names else "ddpmkit ablate"
        raise DdpmkitError(f"there is no study '{name}' in '{store.out}'{did_you_mean(name, names)}", hint)
    return store.study(name)
