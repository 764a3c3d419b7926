"""What an executor is given and what it gives back: a job, stages to run, events, and places to run them in.

The loop that hands stages out as their needs are met is ddpmkit's own; an executor submits one, polls, and stops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from ddpmkit import files
from ddpmkit.errors import DdpmkitError

# {"event": "progress", "stage": id, "done": 0.5}, {"event": "end", "stage": id, "state": "done"}, {"event": "log",
# "text": ..}; states are done, failed, diverged, interrupted, timed out. docs/executors.md has them all.
Event = dict[str, Any]
Emit = Callable[[Event], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class Job:
    """What whoever runs a stage needs, in this process or in another one, where it goes as JSON.

    Attributes:
        out: the results folder.
        plugins: what followed ``-p``.
        installed: whether installed plugins take part.
        devices: the devices to spread places over.
        places: how many stages may run at once.
        checkpoint_every: steps between two checkpoints of a training.
        run: a name for this one run of the study, by which its own processes are told from those of others.
        steal: marks of the claims that are taken over though their processes may be alive.
        compile: whether networks are compiled: ``auto``, ``on`` or ``off``.
        timeout: seconds that one attempt at a stage may take; None for no limit. A stage that asks whether to stop ends
            by itself then, with a checkpoint; one that does not ask is the executor's to end.
        asked_jobs: how many stages at once the user asked for; None where nothing was said. ``places`` and ``devices``
            are made of it and of what this machine has; an engine of other machines looks at theirs.
        asked_device: what the user said of the device, in the same way.
        registry: the components, in the process that planned the study; another process makes its own.
    """

    out: str
    plugins: tuple[str, ...]
    installed: bool
    devices: tuple[str, ...]
    places: int
    checkpoint_every: int
    run: str = ""
    steal: tuple[str, ...] = ()
    compile: str = "auto"
    timeout: float | None = None
    asked_jobs: int | None = None
    asked_device: str = "auto"
    registry: Any = field(default=None, compare=False, repr=False)

    def json(self) -> dict[str, Any]:
        """The job as JSON values, without the registry."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "registry"}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Read a job back."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
        return cls(**values)

    def folder(self, task: Task) -> Path:
        """The stage's folder: what it prints may be kept in its log.txt."""
        return stage_folder(Path(self.out), task.kind, task.id)

    def device(self, place: int) -> str:
        """The device of a place."""
        return self.devices[place % len(self.devices)]


def stage_folder(out: Path, kind: str, stage: str) -> Path:
    """Return the folder of a stage in a results folder.

    Raises:
        DdpmkitError: for a kind or an id that is no name in a folder: some record was made up.
    """
    return Path(stage_path(out, kind, stage))


def stage_path(out: Path, kind: str, stage: str) -> str:
    """Return the same as text: a large plan asks of tens of thousands, and to make a Path costs more than to look.

    Raises:
        DdpmkitError: the same.
    """
    if not (files.plain(kind) and files.plain(stage)):
        raise DdpmkitError(f"'{kind} {stage[:80]}' is no stage", "ddpmkit doctor names the files that are damaged")
    return f"{out}/store/{kind}/{stage[:2]}/{stage}"


@dataclass(frozen=True)
class Task:
    """A stage as an executor sees it.

    Attributes:
        id: its id.
        kind: what it does.
        label: for people.
        record: the whole stage as JSON values, for whoever runs it.
    """

    id: str
    kind: str
    label: str
    record: dict[str, Any]


class Pool(ABC):
    """Places in which stages run, for the length of one study.

    Each stage that was submitted ends with one event ``end``, or goes back with ``requeued`` and is handed out again.
    Events are emitted from within these methods alone, never from another thread.
    """

    places: int

    @abstractmethod
    def submit(self, place: int, task: Task) -> None:
        """Begin a stage in a place that is free, or take it in to begin it at the next :meth:`poll`."""

    @abstractmethod
    def poll(self, seconds: float) -> None:
        """Wait for news, for about so many seconds at most, and emit it."""

    def stop(self) -> None:  # noqa: B027 - a pool whose stages ask for themselves has nothing to add
        """Ask what runs to write its checkpoint and to end; nothing more is submitted. Called once."""

    def close(self, *, now: bool) -> None:  # noqa: B027 - the same
        """End what is left; ``now``: without waiting, and with an event ``end`` for each stage that is cut off."""
