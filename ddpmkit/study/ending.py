"""How a run ends: by signals, by an executor that fails; and what is written of a stage that could not."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ddpmkit import __version__, files
from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.places import inside, unwritten
from ddpmkit.plugin.blame import note_press
from ddpmkit.plugin.culprit import culprit
from ddpmkit.plugin.execution import ShouldStop
from ddpmkit.plugin.loader import BUILTIN
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.claim import free
from ddpmkit.study.plan import Plan
from ddpmkit.study.stage import Stage
from ddpmkit.study.store import Store

WAITS = b"\nstopping: what runs writes its checkpoint first; the same again ends it now\n"


class Stop:
    """Set by the first signal; the second one interrupts whatever runs, and the third one ends the process."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._times = 0

    def is_set(self) -> bool:
        """Whether to stop."""
        return self.signal is not None

    def __call__(self, number: int, _frame: Any) -> None:
        """Take a signal.

        Raises:
            KeyboardInterrupt: at the second one.
        """
        self._times += 1
        if self._times > 2:
            os._exit(128 + number)
        if self.signal is not None:
            note_press()
            raise KeyboardInterrupt
        self.signal = number
        try:
            os.write(2, WAITS)  # print is no thing for a handler: it may have interrupted a print
        except OSError:
            return


@contextmanager
def stop_flag() -> Iterator[Stop]:
    """Yield what SIGINT and SIGTERM set while the context is open; only the main thread can take signals."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def told(text: str, registry: Registry) -> str:
    """An executor in words, with the plugin that brings it."""
    entry = registry.find("executor", text.partition(":")[0])
    of = "" if entry.plugin == BUILTIN else f" of plugin {entry.plugin} {entry.plugin_version}".rstrip()
    return f"executor '{text}'{of}"


@contextmanager
def blamed(text: str, registry: Registry, should_stop: ShouldStop) -> Iterator[None]:
    """Run stages with an executor inside this block; a second signal cuts it short.

    Raises:
        DdpmkitError: for whatever a plugin's executor raises, an exit included.
    """
    try:
        yield
    except DdpmkitError as err:
        where = culprit(err, registry)
        if where is None or where.raised:  # what a plugin says in its own words stays as it is
            raise
        raise DdpmkitError(f"{err.message} [{where.brief}]", err.hint, code=Exit.FAILED) from err
    except BaseException as err:  # a plugin's code may raise anything
        if isinstance(err, KeyboardInterrupt) and should_stop():
            return
        of_plugin = registry.find("executor", text.partition(":")[0]).plugin != BUILTIN
        where = culprit(err, registry)
        if where is None and not of_plugin:
            raise
        place = f" [{where.place}]" if where else ""
        raise DdpmkitError(
            f"{told(text, registry)} failed: {f'{type(err).__name__}: {err}'.rstrip(': ')}{place}",
            "what is done is kept, the same command goes on from here; ddpmkit -v ablate ... shows the traceback",
            code=Exit.FAILED,
        ) from err


def not_run(
    plan: Plan, stages: Sequence[Stage[Any]], before: Mapping[str, dict[str, Any]], store: Store
) -> list[Stage[Any]]:
    """Return the stages that an executor could have run and has not touched."""
    waits = {s.id for s in plan.stages.values() if not store.done(s.kind, s.id)}
    return [
        s
        for s in stages
        if s.id in waits
        and not any(need in waits for _, need in s.needs)
        and store.status(s.kind, s.id) == before[s.id]
    ]


def settle(store: Store, stage: Stage[Any], event: dict[str, Any], run: str) -> None:
    """Write how a stage ended where its worker could not: none that has ended is left as running, or without a word.

    The executor knows that its process has ended, wherever that was; so the run's claim on the stage is taken back.
    Of a stage behind a link that leads out of the store, which was refused, nothing is written.
    """
    path = store.folder(stage.kind, stage.id) / "status.json"
    if not inside(store.root, path.parent):
        return
    free(path.parent, run)
    if event["state"] == "done" or store.held(stage.kind, stage.id) or store.done(stage.kind, stage.id):
        return  # whoever holds it writes how it ends
    record = files.read_sealed(path)
    if not record:
        record = {"state": "running", "attempt": 1, "seconds": 0.0, "work": stage.work, "label": stage.label}
        record |= {"how": stage.recipe, "ddpmkit": __version__}
    if record.get("state") == "running" or "error" in event:
        record |= {"state": event["state"], "error": event.get("error", "its worker ended without a word")}
        try:
            files.write_sealed(path, record)
        except OSError as err:  # a full disk costs the record, not the stages that still run
            print(f"warning: {stage.label}: how it ended: {unwritten(err).message}", file=sys.stderr)
