"""Who is at work on a study, and who is collecting garbage: neither waits for a lock, and neither is overlooked.

    studies/mine/.runs/<run>/claim.json     a run of the study, as long as it lasts
    store/gc/claim.json                     a collection of what no study needs

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
from ddpmkit.study.claim import SILENT, Claim, claimed, holder, silent_for
from ddpmkit.study.store import Store

RUNS, COLLECTION = ".runs", "gc"
LATELY = 3600.0  # seconds in which a collection may have come between a plan and its run; clocks may differ
LOOK = 0.2  # seconds between two looks


@contextmanager
def at_work(folder: Path, run: str) -> Iterator[None]:
    """Say for the length of the block that a run is at work on a study, so that nobody renames or removes it."""
    place = folder / RUNS / run
    try:
        with claimed(place, run):
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
    try:
        return sorted((folder / RUNS).iterdir())
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
def collecting(store: Store, run: str) -> Iterator[None]:
    """Claim the place of a collection for the length of the block.

    Raises:
        DdpmkitError: when another one is at work.
    """
    place = store.root / COLLECTION
    # One that has been silent for long is taken over: it moves whole folders, and leaves nothing half.
    with claimed(place, run, over=lambda _: silent_for(place) > SILENT) as held:
        if isinstance(held, Claim):
            raise DdpmkitError(f"another gc is at work in '{store.out}': {held}", "wait for it, then ddpmkit gc")
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
