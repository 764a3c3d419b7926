"""Who is at work on a study, and who is collecting garbage: neither waits for a lock, and neither is overlooked.

    studies/mine/.runs/<run>/claim.json     a run of the study, as long as it lasts
    store/gc/claim.json                     a collection of what no study needs

Whoever writes a plan, begins to work on a study, renames or removes it has the claim of its folder for that moment, so
that these come one after another.

A run writes its plan and then looks for a collection; a collection claims its place and then reads the plans. So one of
the two always sees the other, whatever their order: what a plan needs is not collected, or it is made again.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddpmkit.errors import DdpmkitError
from ddpmkit.study.claim import ALIVE, SILENT, Claim, Held, claimed, holder, silent_for
from ddpmkit.study.store import Store

RUNS, COLLECTION = ".runs", "gc"
LATELY = 3600.0  # seconds in which a collection may have come between a plan and its run; clocks may differ
LOOK = 0.2  # seconds between two looks
SOON = 0.05  # seconds between two looks at who has a study's folder
PATIENCE = 5.0  # seconds after which it is said that somebody does


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes, moves or enters a study, and keep others waiting inside the block.

    A process that has been silent for long is gone, wherever it was: each of these takes a moment.
    """
    told, since = False, time.monotonic()
    while True:
        with claimed(folder, "", over=lambda _: silent_for(folder) > SILENT) as held:
            if isinstance(held, Held):
                yield
                return
        if not told and time.monotonic() - since > PATIENCE:
            told = True
            print(f"note: waits for {held}, which writes the plan of the study", file=sys.stderr)
        time.sleep(SOON)


def let_go_of_claims(folder: Path) -> None:
    """Take the claim files out of a folder that was moved under its claim: they went with it, and hold nobody off."""
    with contextlib.suppress(OSError):  # of a claim that stays, the process is gone soon
        for path in (*folder.glob("claim*.json"), folder / ALIVE):
            path.unlink(missing_ok=True)


@contextmanager
def at_work(folder: Path, run: str) -> Iterator[None]:
    """Say for the length of the block that a run is at work on a study, so that nobody renames or removes it."""
    place = folder / RUNS / run
    try:
        with contextlib.ExitStack() as stack:
            with alone(folder):  # who renames it has looked already, or will see us
                stack.enter_context(claimed(place, run))
            yield
    finally:
        for path in _places(folder):  # ours, and those of runs that were killed; not of one that begins this moment
            if path == place or (holder(path) is None and _age(path) > LATELY):
                shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are there
            place.parent.rmdir()


def runs_of(folder: Path) -> list[Claim]:
    """Return who is at work on a study, and is not known to be gone."""
    return [claim for place in _places(folder) if (claim := holder(place)) is not None]


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _places(folder: Path) -> list[Path]:
    place = folder / RUNS
    try:
        return [] if place.is_symlink() else sorted(place.iterdir())  # what a link leads to is nobody's run
    except OSError:
        return []


def refuse_running(folder: Path) -> None:
    """Refuse to touch a study that somebody is at work on.

    Raises:
        DdpmkitError: with who that is.
    """
    found = runs_of(folder)
    if found:
        hint = f"wait for it, or stop it; if it is gone, delete '{folder / RUNS}'"
        raise DdpmkitError(f"study '{folder.name}' is running: {found[0]}", hint)


@contextmanager
def collecting(store: Store, run: str, again: str = "ddpmkit gc") -> Iterator[None]:
    """Claim the place of a collection for the length of the block; ``again`` is the command to try later.

    Raises:
        DdpmkitError: when another one is at work, or a folder of the store leads out of it.
    """
    store.check_links()
    place = store.root / COLLECTION
    # One that has been silent for long is taken over: it moves whole folders, and leaves nothing half.
    with claimed(place, run, over=lambda _: silent_for(place) > SILENT) as held:
        if isinstance(held, Claim):
            raise DdpmkitError(f"another gc is at work in '{store.out}': {held}", f"wait for it, then {again}")
        yield


def collected_lately(store: Store) -> bool:
    """Whether a collection may have taken what was there when a plan was made; waits for one that is at work.

    To be asked when the plan has been written.
    """
    place, said = store.root / COLLECTION, False
    while (claim := holder(place)) is not None and silent_for(place) <= SILENT:
        if not said:
            print(f"note: waiting for a gc to end: {claim}", file=sys.stderr)
        said = True
        time.sleep(LOOK)
    try:
        return abs(time.time() - place.stat().st_mtime) < LATELY
    except OSError:
        return False
