"""Run one stage: at most once at a time, committed whole, and whatever goes wrong stays in it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddpmkit import __version__, files
from ddpmkit import device as devices
from ddpmkit.errors import DdpmkitError, Diverged, Interrupted
from ddpmkit.places import refuse_outside, unwritten
from ddpmkit.plugin import changes
from ddpmkit.plugin.culprit import culprit
from ddpmkit.plugin.execution import Emit
from ddpmkit.plugin.loader import BUILTIN
from ddpmkit.plugin.registry import Registry
from ddpmkit.randomness import seeded_libraries
from ddpmkit.study.claim import Held, claimed, told
from ddpmkit.study.pace import Steady
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.stage import Output, Stage
from ddpmkit.study.store import Store
from ddpmkit.study.takeover import TakeOver
from ddpmkit.study.work import Work
from ddpmkit.text import one_line

WAIT, STEP = 1.0, 0.1  # seconds between two looks at a claim of another process, and at whether to stop


def execute(
    stage: Stage[Any],
    store: Store,
    registry: Registry,
    options: StageOptions,
    emit: Emit,
    should_stop: Callable[[], bool] = lambda: False,
) -> str:
    """Run one stage unless its output is there; return its state and write it to status.json.

    Whatever goes wrong stays in the stage: done, failed, diverged, interrupted or timed out. Another process that runs
    the same stage is waited for, unless its stages are to be taken over.
    """
    folder = store.folder(stage.kind, stage.id)
    try:
        refuse_outside(store.around(stage.kind, stage.id), folder, folder / "ckpt")
    except DdpmkitError as err:
        why = err
    else:
        try:
            return _execute(stage, store, registry, options, emit, should_stop)
        except OSError as err:  # a disk that refuses its claim, its spec or its status: others may have more luck
            if not _below(store.out, err.filename):  # not the disk's: whoever hears of it has left
                raise
            why = unwritten(err)
    print(f"warning: {stage.label}: failed: {why.message}; {why.hint}", file=sys.stderr)
    return "failed"


def _below(out: Path, name: Any) -> bool:
    """Whether what an error of the system names lies in the results folder; one of a pipe names nothing."""
    return isinstance(name, str) and Path(name).is_relative_to(out)


def _execute(
    stage: Stage[Any],
    store: Store,
    registry: Registry,
    options: StageOptions,
    emit: Emit,
    should_stop: Callable[[], bool],
) -> str:
    folder, over, waited = store.folder(stage.kind, stage.id), TakeOver(options.steal, options.run), False
    while True:
        if store.intact(stage.kind, stage.id):  # whoever claims it may have ended between its output and its claim
            return "done"
        with claimed(folder, options.run, over=over) as held:
            if isinstance(held, Held):
                over.had = True
                if waited and store.status(stage.kind, stage.id).get("state") == "diverged":
                    return "diverged"  # as it would again
                state = _execute_held(stage, store, registry, options, emit, should_stop, held)
                if state is not None:
                    return state
                continue  # somebody else has it now
            note, waited = told(folder, held), True
        emit({"event": "progress", "stage": stage.id, "done": 0.0, "note": note})
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            if should_stop():
                return "interrupted"
            time.sleep(STEP)


def _execute_held(
    stage: Stage[Any],
    store: Store,
    registry: Registry,
    options: StageOptions,
    emit: Emit,
    should_stop: Callable[[], bool],
    held: Held,
) -> str | None:
    """Run a stage whose claim we hold; None where somebody took it over, who then writes everything of it."""
    started, asked = time.perf_counter(), 0

    def stop_asked() -> bool:
        if held.lost():
            raise Interrupted("another process has taken the stage over")  # without a checkpoint: the folder is theirs
        nonlocal asked
        asked += 1  # the first time before anything was done: a limit shorter than what comes before still gets on
        return should_stop() or (asked > 1 and late())

    def late() -> bool:
        return options.timeout is not None and time.perf_counter() - started > options.timeout

    def write(work: Work) -> None:
        """Write on what the stage runs and what it took: another may go on from it, and this process be killed."""
        if held.holds():
            took = before_now + time.perf_counter() - started
            now = {**status, "fingerprint": {**status["fingerprint"], **work.ran}, "seconds": took}
            files.write_sealed(folder / "status.json", now)

    where, steady = None, Steady()
    folder = store.folder(stage.kind, stage.id)
    if store.intact(stage.kind, stage.id):
        return "done"
    if (folder / "out").exists():  # something is there, but not what was committed
        place = files.quarantine(folder / "out")
        print(f"warning: the output of {stage.label} is damaged; set aside as {place.name}", file=sys.stderr)
    before = store.status(stage.kind, stage.id)
    # What earlier attempts ran on, where this one goes on from what they left; a killed one may not have said so.
    earlier = [*before.get("earlier", ()), before.get("fingerprint", {})] if (folder / "ckpt").is_dir() else []
    status = {
        "state": "running",
        "attempt": before.get("attempt", 0) + 1,
        "seconds": before.get("seconds", 0.0) if before.get("state") != "done" else 0.0,
        "work": stage.work,
        "label": stage.label,
        "how": stage.recipe,
        "ddpmkit": __version__,
    }
    if earlier:
        status["earlier"] = [one for i, one in enumerate(earlier) if one not in earlier[:i]]
    before_now = status["seconds"]
    store.write_spec(stage)
    files.write_sealed(folder / "status.json", status)
    emit({"event": "attempt", "stage": stage.id})
    try:
        device = devices.resolve(options.device)
        devices.keep_memory(device)
        with devices.one_thread(), devices.reproducible(device), seeded_libraries(stage.id, "stage", 0):
            status["fingerprint"] = devices.fingerprint(device)
            _same_libraries(stage, registry)
            tell = steady.heard(emit)
            work = Work(stage, store, registry, options, device, tell, stop_asked, kept=lambda: write(work))
            write(work)
            if _of_plugins(stage.recipe):
                registry.plugins()  # all of them, so that what their imports change is there before the work begins
            with changes.left_alone() if registry.foreign() else contextlib.nullcontext():
                try:
                    output = stage.spec.run(work)
                finally:
                    status["fingerprint"] |= work.ran
            if held.holds():
                _commit(work, output)
                status["work"] = stage.work if output.work is None else output.work
                if (pace := steady.pace(stage.work)) is not None:
                    status["pace"] = pace
        status["state"] = "done"
    except Interrupted as err:
        status.update(state="interrupted", error=str(err))
        if late() and not should_stop():
            goes_on = any((folder / "ckpt").glob("[0-9]*"))
            next_time = "goes on from its checkpoint" if goes_on else "begins it again: give it more with --timeout"
            late_by = f"it took longer than {options.timeout:g} s; the same command {next_time}"
            status.update(state="timed out", error=late_by)
    except Diverged as err:
        status.update(state="diverged", error=str(err))
    except DdpmkitError as err:
        status.update(state="failed", error=err.message)
    except BaseException as err:
        # Whatever a plugin raises stays in its own cell, an exit too. A second Ctrl-C reaches a stage of this process
        # as an exception; one that nobody typed is the plugin's.
        state = "interrupted" if isinstance(err, KeyboardInterrupt) and should_stop() else "failed"
        where, said = culprit(err, registry), f"{type(err).__name__}: {err}"
        if isinstance(err, OSError) and where is None:  # the disk's, and no plugin's
            disk = unwritten(err)
            said = f"{disk.message}; {disk.hint}"
        status.update(state=state, error=said, traceback=traceback.format_exc())
    status["seconds"] += time.perf_counter() - started
    if not held.holds():  # whoever has it writes how it ends
        print(f"warning: {stage.label}: another process has taken it over, and this one left it", file=sys.stderr)
        return None
    try:
        files.write_sealed(folder / "status.json", status)
    except OSError as err:  # what is committed counts, and the next run writes how it ended
        print(f"warning: {stage.label}: how it ended: {unwritten(err).message}", file=sys.stderr)
    if status["state"] in ("failed", "diverged", "timed out"):
        of = f" [{where}]" if where else ""
        print(f"warning: {stage.label}: {status['state']}: {one_line(status['error'])}{of}", file=sys.stderr)
    return str(status["state"])


def _of_plugins(record: Any) -> bool:
    """Whether a record, or one in it, is of a component that a plugin brings."""
    if not isinstance(record, dict):
        return False
    return record.get("plugin", BUILTIN) != BUILTIN or any(_of_plugins(value) for value in record.values())


def _same_libraries(stage: Stage[Any], registry: Registry) -> None:
    """Refuse to run where plugins have changed other things in torch than where the stage was planned.

    Raises:
        DdpmkitError: with the plugins' names.
    """
    planned = stage.spec.changed_by or {}
    if planned:
        registry.plugins()  # all of them: a change reaches every cell
    here = registry.changed_by()
    if here != planned:
        names = ", ".join(sorted({*here, *planned}))
        raise DdpmkitError(
            f"plugin {names} replaces parts of torch, numpy or scipy in one process and not in another",
            "make the change where the plugin is imported, so that ids hold it",
        )


def _commit(w: Work, output: Output) -> None:
    """Commit what a stage found: its record, and a .safetensors file for each named group of arrays."""
    blobs = {f"{name}.safetensors": files.pack(group) for name, group in output.arrays.items()}
    text = (json.dumps(output.record.json(), sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
    files.commit_folder(w.folder / "out", {"result.json": text, **blobs}, {"stage": w.stage.id})
