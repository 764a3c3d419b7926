"""A planned study into its folder: its plan, its file, and that it grew; one process at a time.

Between its planning and now another process may have grown the study. What that one added stays: the two are planned as
one. Only a name that became another study's meanwhile is refused, as it would have been before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.study import growth
from ddpmkit.study.claim import SILENT, Held, claimed, silent_for
from ddpmkit.study.grids import There, added, in_ranges, lacking, union
from ddpmkit.study.prepare import Prepared, planned
from ddpmkit.study.sharing import register
from ddpmkit.study.study_file import FILE
from ddpmkit.study.study_name import grown

LOOK = 0.05  # seconds between two looks at who writes
PATIENCE = 5.0  # seconds after which it is said that somebody does


def enter(prepared: Prepared, *, mark: str = "") -> Prepared:
    """Write the plan of a study into its folder, and return the study as it is planned now.

    It is another plan than was given where the study has grown since; where that has all of it and more, nothing is
    written.

    Args:
        prepared: The planned study.
        mark: What its records of growth say of it besides, behind its train seeds, as of a rule that will add some.

    Raises:
        NameTakenError: when the name is another grid's by now.
        DdpmkitError: when the folder can't be written.
    """
    if prepared.entered and not mark:
        return prepared
    store, folder = prepared.store, prepared.folder
    store.prepare()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        register(store)
        with _alone(folder):
            if prepared.entered:
                _mark(prepared, mark)
                return prepared
            return replace(_entered(prepared, mark), entered=True)
    except OSError as err:
        raise DdpmkitError(f"can't write to '{folder}': {err.strerror}", "choose another --out") from None


def _entered(prepared: Prepared, mark: str) -> Prepared:
    """Write a plan; nobody else does so now."""
    store, seen, now = prepared.store, prepared.there, There.read(prepared.store, prepared.study.name)
    if now is not None and now != seen:
        if seen is None or lacking(seen.grid, now.grid):  # it has not grown, it is another study
            grown(prepared.study, now, store)
        both = union(now, prepared.study)
        if not added(now.grid, both.grid()):
            _mark(prepared, mark)
            return prepared
        print(
            f"note: another process has grown study '{both.name}' meanwhile; both are planned as one", file=sys.stderr
        )
        prepared = planned(both, now, store=store, registry=prepared.registry, run_options=prepared.run_options)
    folder, plan = prepared.folder, prepared.plan
    grid = plan.study.grid()
    # The mark first: a study that is stopped here is grown by the same command again, and never without it. The plan
    # last: who reads it before the file finds in the file at least what is in the plan.
    if now is not None and (what := added(now.grid, grid)):
        growth.add(folder, what, now.grid["train_seeds"], grid["train_seeds"])
    _mark(prepared, mark)
    files.write_text(folder / FILE, prepared.study.toml())
    files.write_sealed(folder / "plan.json", plan.json())
    return prepared


def _mark(prepared: Prepared, mark: str) -> None:
    if mark:
        seeds = prepared.study.train_seeds
        said = f"train seeds {','.join(in_ranges([str(s) for s in seeds]))}, {mark}"
        growth.add(prepared.folder, [said], (), seeds)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes the plan of a study, and keep others waiting inside the block.

    A process that has been silent for long is gone, wherever it was: writing a plan takes a moment.
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
        time.sleep(LOOK)
