"""A planned study into its folder: its plan, its file, and that it grew; one process at a time.

Between its planning and now another process may have grown the study. What that one added stays: the two are planned as
one. Only a name that became another study's meanwhile is refused, as it would have been before.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.places import refuse_outside, unwritten
from ddpmkit.study import growth
from ddpmkit.study.grids import There, added, in_ranges, lacking, union
from ddpmkit.study.prepare import Prepared, planned
from ddpmkit.study.presence import RUNS, alone, at_work
from ddpmkit.study.sharing import register
from ddpmkit.study.study_file import FILE
from ddpmkit.study.study_name import grown


@contextmanager
def working(prepared: Prepared, run: str = "", *, enters: bool = True) -> Iterator[Prepared]:
    """Enter a study and be at work on it for the length of the block: nobody renames or removes it meanwhile.

    Blocks may lie in each other. One run of a study is in one, and so is whoever runs it more than once or reports it.

    Args:
        prepared: The study, entered or not.
        run: The run's name; drawn by chance where there is none.
        enters: Whether the plan is written now; whoever runs the study does it otherwise.

    Raises:
        NameTakenError: when the name is another grid's by now.
        DdpmkitError: when the folder can't be written.
    """
    with ExitStack() as stack:
        stack.callback(_leave, prepared.folder)
        prepared.store.prepare()
        refuse_outside(prepared.folder.parent, prepared.folder / RUNS)
        try:
            stack.enter_context(at_work(prepared.folder, run or secrets.token_hex(8)))
        except OSError as err:
            raise _unwritable(prepared, err) from None
        yield enter(prepared) if enters else prepared


def _leave(folder: Path) -> None:
    """Of a study that was never entered no empty folder stays."""
    for place in (folder, folder.parent):
        with suppress(OSError):
            place.rmdir()


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
        with alone(folder):
            if prepared.entered:
                _mark(prepared, mark)
                return prepared
            return replace(_entered(prepared, mark), entered=True)
    except OSError as err:
        raise _unwritable(prepared, err) from None


def _unwritable(prepared: Prepared, err: OSError) -> DdpmkitError:
    return unwritten(err, prepared.folder)


def _entered(prepared: Prepared, mark: str) -> Prepared:
    """Write a plan; nobody else does so now."""
    store, seen, now = prepared.store, prepared.there, There.read(prepared.store, prepared.study.name)
    if prepared.study.tune and not prepared.study.tune.chosen:
        raise DdpmkitError(f"the trials of study '{prepared.study.name}' come first", "study/tuning.py runs them")
    if now is not None and now != seen:
        if seen is None or lacking(seen.grid, now.grid):  # it has not grown, it is another study
            grown(prepared.study, now, store)
        both = union(now, prepared.study)
        if not added(now.grid, both.grid()) and both.orderings == now.orderings:
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
    marked = {"grown": True} if growth.of(folder) else {}  # or who deletes the records would take the mark away
    files.write_sealed(folder / "plan.json", {**plan.json(), **marked})
    return prepared


def _mark(prepared: Prepared, mark: str) -> None:
    if mark:
        seeds = prepared.study.train_seeds
        said = f"train seeds {','.join(in_ranges([str(s) for s in seeds]))}, {mark}"
        growth.add(prepared.folder, [said], (), seeds)
