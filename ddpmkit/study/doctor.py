"""Which files of a results folder are damaged, and what the next run does about each. Changes nothing.

What is wrong with a file says study/examine.py; here is which files there should be, what each is for, and so what
becomes of it. A stage is made again alone: it gives the same bits, so what was made of it stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.study import growth
from ddpmkit.study.begin import BEGAN
from ddpmkit.study.examine import CHANGED, MISSING, SAME, File, committed, lines, named_by, record
from ddpmkit.study.needs import Key, Needs, needs_of
from ddpmkit.study.records import TrainRecord
from ddpmkit.study.settings import PLURALS
from ddpmkit.study.sharing import SHARED, results_folders
from ddpmkit.study.stages import STAGE_KINDS
from ddpmkit.study.store import FORMAT, Store
from ddpmkit.study.study_file import FILE
from ddpmkit.study.values import read_toml

NOTHING = "nothing"


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written.

    Attributes:
        path: where it is, or should be.
        why: what is wrong with it.
        then: what the next run does about it.
        label: the stage that it belongs to, for people; empty where it is no stage's.
        stage: kind and id of it; None where it is no stage's.
        studies: names of the studies that need the stage.
        read_by: labels of the stages that read its output, and stay as they are.
    """

    path: Path
    why: str
    then: str
    label: str = ""
    stage: Key | None = None
    studies: tuple[str, ...] = ()
    read_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checkup:
    """What is damaged; how many files were looked at, their bytes; how many stages were not, as somebody runs them."""

    damaged: tuple[Damage, ...]
    files: int
    size: int
    busy: int


def check_up(store: Store, *, quick: bool = False) -> Checkup:
    """Look at every file of a store and of the studies that rest on it; changes nothing.

    Reports and pictures are not looked at: they are made of these files, and ``ddpmkit report --check`` compares them.

    Args:
        store: The store.
        quick: Whether of committed files only the sizes are looked at, and no content is hashed.

    Raises:
        DdpmkitError: when there is neither a store nor a study.
    """
    if not store.root.is_dir() and not (store.out / "studies").is_dir():
        raise DdpmkitError(f"there is no store in '{store.out}'", "ddpmkit doctor --out FOLDER")
    needs, looked, busy = needs_of(store), list[tuple[File, Damage | None]](), 0
    planned, read_by, studies = needs.stages(), _read_by(needs), _studies(needs)
    for kind in STAGE_KINDS:
        for id in store.stages(kind):
            if store.held(kind, id):
                busy += 1
                continue
            key = (kind, id)
            label = planned.get(key, {}).get("label") or store.status(*key).get("label") or f"{kind} {id[:12]}"
            for file, then in _of_stage(store, key, quick=quick):
                if key not in planned and not needs.damaged:
                    then = "nothing: no study needs the stage; ddpmkit gc moves it to the trash"
                found = _damage(file, then)
                told = None if found is None else replace(found, label=label, stage=key, studies=studies.get(key, ()))
                rests = read_by.get(key, ()) if told and _is_output(file.path, store.folder(*key)) else ()
                looked.append((file, told and replace(told, read_by=rests)))
    rest = [*_of_store(store, quick=quick), *(f for out in results_folders(store)[0] for f in _of_studies(out))]
    looked += [(file, _damage(file, then)) for file, then in rest]
    damaged = tuple(found for _, found in looked if found is not None)
    return Checkup(damaged, len(looked), sum(file.size for file, _ in looked), busy)


Looked = tuple[File, str | None]  # and what the next run does where it is damaged


def _damage(file: File, then: str | None) -> Damage | None:
    if not file.why:
        return None
    return Damage(file.path, file.why, f"{NOTHING}: it is read as before" if file.why == SAME else then or NOTHING)


def _of_stage(store: Store, key: Key, *, quick: bool) -> Iterator[Looked]:
    """The files of a stage that nobody is at work on."""
    kind, id = key
    folder = store.folder(kind, id)
    status, said = record(folder / "status.json")
    finished = (folder / "out").exists() or (said or {}).get("state") == "done"
    spec, begun = named_by(folder / "spec.json", id), finished or (folder / "ckpt").exists()
    ends = "" if finished else ", when the stage runs"
    lost = "; when it ran, for how long and on what is lost" if finished else ""
    for file, then in ((spec, f"writes it again from the plan{ends}"), (status, f"writes it again{ends}{lost}")):
        if begun or file.why != MISSING:  # else it was claimed, and its process or the disk failed as it began
            yield file, then
    if not begun and MISSING in (spec.why, status.why):
        return
    training = kind == TrainRecord.kind
    steps = {path: committed(path, quick=quick) for path in _checkpoints(folder)} if training else {}
    again = "computes the stage again"
    last = _last(store, id, steps) if finished and training else None
    if training:
        if last is not None and last not in steps:
            steps[last] = [File(last / files.COMMIT, 0, MISSING)]
        again = _resumes(steps)
    if finished:
        yield from ((file, again) for file in committed(folder / "out", quick=quick))
    for path, found in steps.items():
        then = again
        if last is not None and path != last:
            then = f"{NOTHING}: no stage reads an earlier checkpoint of a finished training; ddpmkit gc takes it away"
        yield from ((file, then) for file in found)
    if training:
        yield from _of_training(folder, last, finished=finished)


def _of_training(folder: Path, last: Path | None, *, finished: bool) -> Iterator[Looked]:
    """What a training says of itself; a finished one's is read by nothing but the curve of its losses."""
    log, row = lines(folder / "metrics.jsonl", whole=finished)
    if finished and not log.why and last is not None and (row or {}).get("step") != int(last.name):
        log = replace(log, why=f"ends before step {int(last.name)}")
    if finished or log.why != MISSING:
        then = f"{NOTHING}: no number is made of it; the report's curve of the losses lacks what is gone"
        yield log, then if finished else "keeps the lines that are whole, up to where the training goes on"
    how, _ = record(folder / "network.json")
    if how.why != MISSING:  # of a training that is older than the file, or did not begin
        then = f"{NOTHING}: a finished training's is not read"
        yield how, then if finished else "finds out again how the network runs"
    before, _ = record(folder / BEGAN)
    if before.why != MISSING:  # of a training that began at its first step
        yield before, f"{NOTHING}: the report's seconds of training lack those of the steps that another one had made"


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "ckpt").glob("[0-9]*") if path.is_dir() and path.name.isdecimal())


def _last(store: Store, id: str, steps: dict[Path, list[File]]) -> Path | None:
    """The checkpoint that later stages read."""
    done = store.record(TrainRecord, id)
    folder = store.folder(TrainRecord.kind, id) / "ckpt"
    return folder / f"{done.steps:08d}" if done else next(iter(sorted(steps, reverse=True)), None)


def _resumes(steps: dict[Path, list[File]]) -> str:
    whole = [path.name for path, found in steps.items() if not any(f.why not in ("", SAME) for f in found)]
    return f"goes on with the training from step {int(max(whole))}" if whole else "trains again from the start"


def _of_store(store: Store, *, quick: bool) -> Iterator[Looked]:
    """The files of a store that are no stage's."""
    mark = store.root / "FORMAT"
    try:
        text = mark.read_text(encoding="utf-8", errors="replace")
        other = f"names the format {text.strip()!r}, and this ddpmkit writes {FORMAT}"
        yield (
            File(mark, len(text), "" if text.strip() == str(FORMAT) else other),
            f"is refused, until {FORMAT} is written into it",
        )
    except OSError:
        if any((store.root / kind).is_dir() for kind in STAGE_KINDS):  # a plan that was not run leaves its data alone
            yield File(mark, 0, MISSING), "writes it again"
    home = store.root / "data"
    decoded = "decodes the data set again from its source, in the first stage that reads its pixels"
    for place in sorted(home.glob("*")) if home.is_dir() else ():
        if re.fullmatch("[0-9a-f]{64}", place.name):
            yield from ((file, decoded) for file in committed(place, quick=quick))
    yield from ((record(p)[0], "reads the data set again and writes it again") for p in _records(home / "stamps"))
    yield from ((record(p)[0], "asks the data again and writes it again") for p in _records(home / "answers"))
    for path in _records(store.root / SHARED):
        said = files.read_json(path)
        out = said.get("out") if isinstance(said, dict) else None
        whole = isinstance(out, str) and files.sha256(out.encode())[:16] == path.stem
        file = File(path, _size(path), "" if whole else CHANGED)
        yield file, "is not told which folder shares the store; delete it, and a run from that folder writes it again"


def _records(folder: Path) -> list[Path]:
    """The records of a folder; what was staged for one and never got its name is none, and goes with gc."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def _of_studies(out: Path) -> Iterator[Looked]:
    """The records of the studies of a results folder; what is made of them is compared by ``report --check``."""
    home = out / "studies"
    folders = [p for p in home.glob("*") if p.is_dir() and not p.name.startswith(".")] if home.is_dir() else []
    for folder in sorted(folders):
        plan, said = record(folder / "plan.json")
        toml = _study_file(folder, said)
        if plan.why == MISSING == toml.why:
            continue  # no study, or one that was just claimed
        command = f"is the study's own command with --name {folder.name}, which writes it again"
        yield plan, command if toml.why else f"is ddpmkit ablate {folder.name}, which writes it again"
        yield toml, f"{command}; ddpmkit ablate {folder.name} refuses it until then"
        grown, _ = record(folder / growth.NAME)
        if grown.why != MISSING or growth.lost(folder):
            yield grown, f"{NOTHING}: the report says that the study grew, and no more when and by what"


def _study_file(folder: Path, plan: dict[str, Any] | None) -> File:
    """The file of a study: TOML that has all that is in the plan; one that was edited may have more."""
    path = folder / FILE
    if not path.is_file():
        return File(path, 0, MISSING)
    try:
        said = read_toml(path)
    except DdpmkitError as err:
        return File(path, _size(path), err.message.removeprefix(f"'{path}' "))
    grid = (plan or {}).get("grid")
    for key, values in _stated(grid).items() if isinstance(grid, dict) else ():
        there = said.get(key)
        if not {*map(repr, values)} <= {*map(repr, there if isinstance(there, list) else [there])}:
            return File(path, _size(path), f"says {key} = {there!r}, and the plan {values!r}")
    return File(path, _size(path))


def _stated(grid: dict[str, Any]) -> dict[str, Sequence[Any]]:
    """Key of a study's file -> the values that a plan has of it."""
    plural, axes = {field: name for name, field in PLURALS.items()}, grid.get("axes", {})
    found = {plural.get(k, k): axes.get(k, [v]) for k, v in grid.get("settings", {}).items()}
    zipped = {field for text in grid.get("zip", ()) for field in text.partition("=")[0].split("+")}
    found = {key: values for key, values in found.items() if PLURALS.get(key, key) not in zipped}
    lists = ("train_seeds", "sample_seeds", "metrics", "features", "only", "zip", "exclude")
    found |= {key: grid.get(key, []) for key in lists} | {"design": [grid[k] for k in ("design",) if k in grid]}
    return {key: values for key, values in found.items() if list(values) not in ([], [None])}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_output(path: Path, folder: Path) -> bool:
    return {"out", "ckpt"} & {*path.relative_to(folder).parts} != set()


def _read_by(needs: Needs) -> dict[Key, tuple[str, ...]]:
    """Stage -> the labels of those that read it."""
    found: dict[Key, list[str]] = {}
    for stage in needs.stages().values():
        for kind, id in stage["needs"]:
            found.setdefault((kind, id), []).append(stage["label"])
    return {key: tuple(dict.fromkeys(labels)) for key, labels in found.items()}


def _studies(needs: Needs) -> dict[Key, tuple[str, ...]]:
    """Stage -> the names of the studies that need it."""
    found: dict[Key, list[str]] = {}
    for plan in needs.by_study.values():
        for stage in plan["stages"]:
            found.setdefault((stage["kind"], stage["id"]), []).append(plan["study"])
    return {key: tuple(names) for key, names in found.items()}
