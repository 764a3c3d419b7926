"""The store: one folder a stage, named by the hash of all that can change its output. Files are the truth.

    store/train/ab/ab12../   spec.json  status.json  metrics.jsonl  ckpt/  out/COMMIT.json

A stage is done when ``out/`` is there, since that folder appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.places import refuse_outside, unwritten
from ddpmkit.plugin.execution import stage_folder, stage_path
from ddpmkit.study.claim import holder
from ddpmkit.study.records import Record, TrainRecord

if TYPE_CHECKING:
    import numpy as np

    from ddpmkit.study.stage import Spec, Stage

    S = TypeVar("S", bound=Spec)

R = TypeVar("R", bound=Record)
FORMAT = 1
HEX = "[0-9a-f]"


@dataclass(frozen=True)
class Store:
    """A results folder: ``<out>/store`` and ``<out>/studies``."""

    out: Path

    @property
    def root(self) -> Path:
        """Where the stages are."""
        return self.out / "store"

    def prepare(self) -> None:
        """Create the store, or check that an existing one is of this format.

        Raises:
            DdpmkitError: for a store of another format, a place that can't be written, or one behind a link.
        """
        try:
            self.check_links()
            if not self._mark.exists():
                files.write_text(self._mark, f"{FORMAT}\n")
            self.check_format()
        except OSError as err:
            raise unwritten(err, self.out) from None

    def check_links(self) -> None:
        """Refuse a store with a folder that leads out of it: all that is below one would be somebody else's.

        Raises:
            DdpmkitError: with where it leads.
        """
        refuse_outside(self.root, *(self.root.iterdir() if self.root.is_dir() else ()))

    def check_format(self) -> None:
        """Refuse a store of another format; writes nothing.

        Raises:
            DdpmkitError: naming both formats.
        """
        if not self._mark.exists():
            return
        found = self._mark.read_text(encoding="utf-8", errors="replace").strip()
        if found != str(FORMAT):
            raise DdpmkitError(
                f"the store in '{self.out}' has format {found!r}, and this ddpmkit writes {FORMAT}",
                f"use another --out; if the file was damaged, write {FORMAT} into {self._mark}",
            )

    @property
    def _mark(self) -> Path:
        return self.root / "FORMAT"

    def folder(self, kind: str, stage: str) -> Path:
        """Return the folder of a stage."""
        return stage_folder(self.out, kind, stage)

    def around(self, kind: str, stage: str) -> Path:
        """Return the folder that a stage's own lies in, and that no link may lead out of."""
        return self.root

    def stages(self, kind: str) -> list[str]:
        """Return the ids of the stages of a kind that have a folder, whatever is in it."""
        return sorted(p.name for p in (self.root / kind).glob(f"{HEX * 2}/{HEX * 64}"))

    def done(self, kind: str, stage: str) -> bool:
        """Whether the stage's output is there, and its numbers are those that were committed."""
        return self._committed(kind, stage) is not None

    def intact(self, kind: str, stage: str) -> bool:
        """Whether a stage is done and all that others read of it is what was committed: arrays, the last weights."""
        folder = self.folder(kind, stage)
        if not self.done(kind, stage) or files.verify_folder(folder / "out") is None:
            return False
        trained = self.record(TrainRecord, stage) if kind == TrainRecord.kind else None
        return trained is None or files.verify_folder(folder / "ckpt" / f"{trained.steps:08d}") is not None

    def write_spec(self, stage: Stage[Any]) -> None:
        """Write what a stage's id is the hash of."""
        files.write_json(self.folder(stage.kind, stage.id) / "spec.json", stage.named)

    def spec(self, kind: str, stage: str) -> dict[str, Any]:
        """Return the spec of a stage, as it was planned.

        Raises:
            DdpmkitError: when it is not what the stage's folder is named by.
        """
        path = self.folder(kind, stage) / "spec.json"
        named = files.read_json(path)
        try:
            whole = files.sha256(files.canonical(named).encode()) == stage
        except (ValueError, RecursionError):  # a number that became infinite; lists in lists without end
            whole = False
        if not whole:
            raise DdpmkitError(
                f"'{path}' is not what its folder is named by", "run the study again: it is written from the plan"
            )
        spec: dict[str, Any] = named["spec"]
        return spec

    def read_spec(self, kind: type[S], stage: str) -> S:
        """Return the spec of a stage as its own type.

        Raises:
            DdpmkitError: when it is not what the stage's folder is named by.
        """
        return kind.from_json(self.spec(kind.kind, stage))

    def arrays(self, kind: str, stage: str, name: str) -> dict[str, np.ndarray[Any, Any]]:
        """Return a group of arrays of a stage; an output that is damaged is set aside.

        Raises:
            DdpmkitError: when it is damaged, or not there.
        """
        from safetensors.numpy import load

        folder = self.folder(kind, stage) / "out"
        if files.verify_folder(folder) is None:
            with contextlib.suppress(FileNotFoundError):  # another reader was faster
                files.quarantine(folder)
            raise DdpmkitError(f"the output of {kind} {stage[:12]} is damaged and was set aside", "run the study again")
        arrays: dict[str, np.ndarray[Any, Any]] = load((folder / f"{name}.safetensors").read_bytes())
        return arrays

    def status(self, kind: str, stage: str) -> dict[str, Any]:
        """Return the stage's status record; empty when it never ran."""
        record = files.read_sealed(self.folder(kind, stage) / "status.json") or {}
        if record.get("state") == "running" and not self.held(kind, stage):
            return {**record, "state": "interrupted", "error": "its process ended without a word"}
        return record

    def held(self, kind: str, stage: str) -> bool:
        """Whether some process is at work on the stage, and is not known to be gone."""
        return holder(self.folder(kind, stage)) is not None

    def record(self, kind: type[R], stage: str) -> R | None:
        """Return what a finished stage found; None when it is not done, or not what was committed."""
        found = self._committed(kind.kind, stage)
        return None if found is None else kind.read(found)

    def result(self, kind: str, stage: str) -> dict[str, Any]:
        """Return the numbers of a finished stage; empty when it is not done, or they are not what was committed."""
        return self._committed(kind, stage) or {}

    def _committed(self, kind: str, stage: str) -> dict[str, Any] | None:
        path = stage_path(self.out, kind, stage)
        try:
            os.stat(path)  # noqa: PTH116 - most stages of a large plan are not there, and need no Path
        except (FileNotFoundError, NotADirectoryError):  # one that may not be looked at is not said to be missing
            return None
        out = Path(path) / "out"
        commit = files.read_json(out / files.COMMIT)
        try:
            text = files.read_record(out / "result.json")
            expected = commit["files"]["result.json"]["sha256"]
            result: dict[str, Any] = json.loads(text)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return result if files.sha256(text) == expected else None

    def study(self, name: str) -> Path:
        """Return the folder of a study."""
        return self.out / "studies" / name


def plans(out: Path) -> dict[str, dict[str, Any] | None]:
    """Return the plans of all studies of a results folder by their names; None for one that is damaged."""
    found = sorted((out / "studies").glob("*/plan.json"))
    return {path.parent.name: _plan(path.parent) for path in found}


def newest_study(out: Path) -> Path:
    """Return the study folder that ran last.

    Raises:
        DdpmkitError: when there is none.
    """
    plans = sorted((out / "studies").glob("*/plan.json"), key=lambda p: p.stat().st_mtime)
    if not plans:
        raise DdpmkitError(f"there are no studies in '{out}'", "ddpmkit ablate --schedules linear,cosine,sigmoid")
    return plans[-1].parent


def find_study(study: str | None, out: Path) -> Path:
    """Return the folder of a study given by name or path; the newest one for None.

    Raises:
        DdpmkitError: when there is no such study.
    """
    if study is None:
        return _readable(newest_study(out))
    for folder in (out / "studies" / study, files.home(study)):
        if (folder / "plan.json").is_file():
            return _readable(folder)
    names = sorted(p.parent.name for p in (out / "studies").glob("*/plan.json"))
    raise DdpmkitError(
        f"there is no study '{study}' in '{out}'", f"studies there: {', '.join(names)}" if names else "ddpmkit ablate"
    )


def _plan(folder: Path) -> dict[str, Any] | None:
    plan = files.read_sealed(folder / "plan.json")
    return plan if plan is not None and {"study", "cells", "results", "stages"} <= plan.keys() else None


def _readable(folder: Path) -> Path:
    if _plan(folder) is None:
        raise DdpmkitError(f"the plan of study '{folder.name}' is damaged", "run the study again; its stages are kept")
    return folder.resolve()
