"""``studies``: what there is, and renamed, thrown away, taken back; ``gc``: what no study needs."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmkit.cli.options import PATH, Json, Out
from ddpmkit.cli.streams import data
from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.text import size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ddpmkit.study.garbage import Garbage
    from ddpmkit.study.store import Store
    from ddpmkit.study.trash import Batch

app = typer.Typer(help="List studies; rename one, remove one, restore one.", invoke_without_command=True)
Name = Annotated[str, typer.Argument(help="Name of a study")]


def register(main: typer.Typer) -> None:
    """Add the commands to the application."""
    main.add_typer(app, name="studies")
    main.command()(gc)


@app.callback()
def studies(context: typer.Context, out: Out = Path("results"), json: Json = False) -> None:
    """List the studies of a results folder, the newest first; or rename one, throw one away, take one back."""
    if context.invoked_subcommand is not None:
        if json or out != Path("results"):  # or it would be another folder's study that is renamed or removed
            word = context.invoked_subcommand
            raise DdpmkitError(f"--out and --json stand behind {word}", f"ddpmkit studies {word} NAME --out {out}")
        return
    import json as json_module
    from dataclasses import asdict

    from ddpmkit.cli.console import print_rows
    from ddpmkit.study.catalogue import list_studies

    found = list_studies(_store(out))
    if json:
        print(json_module.dumps([asdict(study) for study in found], indent=1), file=data())
        return
    rows = [
        (
            s.name,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(s.when)),
            str(s.cells),
            f"{s.done}/{s.stages}" + (" running" if s.running else ""),
            size(s.size),
            s.question,
        )
        for s in found
    ]
    print_rows(f"studies in {out}", ("study", "last run", "cells", "done", "size", "question"), rows, prose=(5,))
    if not found:
        print("there are none; ddpmkit ablate makes one", file=sys.stderr)


@app.command()
def rename(old: Name, new: Name, out: Out = Path("results"), json: Json = False) -> None:
    """Give a study another name, and write its report under it."""
    import json as json_module

    from ddpmkit.report.write import write_again
    from ddpmkit.study.catalogue import rename_study

    folder = rename_study(_store(out), old, new)
    if (folder / "report.json").exists():
        write_again(folder)
    print(f"study '{old}' is '{new}' now, in {folder}", file=sys.stderr)
    if json:
        print(json_module.dumps({"old": old, "new": new, "folder": str(folder)}, indent=1), file=data())


@app.command()
def rm(name: Name, out: Out = Path("results"), json: Json = False) -> None:
    """Move a study to the trash; what it computed stays in the store until gc finds that no study needs it."""
    import json as json_module

    from ddpmkit.study.catalogue import remove_study

    store = _store(out)
    place = remove_study(store, name)
    print(f"study '{name}' is in the trash, {place}", file=sys.stderr)
    print(f"{_typed(f'ddpmkit studies restore {name}', out)} takes it back", file=sys.stderr)
    print(_freeing(store, out), file=sys.stderr)
    if json:
        print(json_module.dumps({"study": name, "trash": str(place)}, indent=1), file=data())


@app.command()
def restore(name: Name, out: Out = Path("results"), json: Json = False) -> None:
    """Take a study back out of the trash, with those of its stages that lie there."""
    import json as json_module

    from ddpmkit.study.catalogue import restore_study

    folder, back, left = restore_study(_store(out), name)
    print(f"study '{name}' is back in {folder}, and {back} of its stages", file=sys.stderr)
    if left:
        print(
            f"note: {left} stages are left in the trash: they are begun again, or somebody runs them", file=sys.stderr
        )
    if json:
        print(
            json_module.dumps({"study": name, "folder": str(folder), "stages": back, "left": left}, indent=1),
            file=data(),
        )


def gc(
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Optimiser states of finished trainings too; a longer training starts again then"),
    ] = False,
    empty_trash: Annotated[
        bool, typer.Option("--empty-trash", help="Delete all that was in the trash before, whatever its age")
    ] = False,
    days: Annotated[float, typer.Option(min=0, help="Delete what has been in the trash for longer")] = 14,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would be done")] = False,
    forget: Annotated[
        Path | None,
        typer.Option(help="A results folder that shared this store and is gone for good", **PATH),
    ] = None,
    out: Out = Path("results"),
    json: Json = False,
) -> None:
    """Move what no study needs to the trash; empty it.

    Earlier checkpoints of finished trainings go there too.

    What report, sample and a longer training need stays; so does whatever somebody is at work on. It can run beside
    a study.
    """
    import json as json_module
    from dataclasses import replace

    from ddpmkit.cli.console import print_rows
    from ddpmkit.study.garbage import collect, find_garbage
    from ddpmkit.study.sharing import forget as forget_folder
    from ddpmkit.study.trash import size_of

    store = _store(out)
    store.check_format()
    if not store.root.is_dir():
        raise DdpmkitError(f"there is no store in '{out}'", "ddpmkit gc --out FOLDER")
    if forget is not None and not forget_folder(store, forget):
        raise DdpmkitError(f"'{forget}' does not share the store in '{out}'", "ddpmkit gc names the folder to forget")
    found = find_garbage(store, deep=deep, days=days, everything=empty_trash)
    sizes = {batch: size_of(batch.folder) for batch in (*found.old, *found.kept)}  # while they are there
    if not json and (found.items or found.old or found.kept):
        print_rows(f"gc of {out}", ("what", "number", "size", ""), _rows(found, sizes))
    if found.busy:
        print(f"note: {found.busy} stages are left, somebody is at work on them", file=sys.stderr)
    if deep and not json:
        print("note: a longer training can't go on from one without its optimiser's state", file=sys.stderr)
    idle = not found.items and not found.old
    if idle:
        print("there is nothing to collect", file=sys.stderr)
    done = not idle and not dry_run and (yes or _asked())
    if done:
        busy = found.busy
        found = collect(store, found, deep=deep)
        moved, freed = sum(i.size for i in found.items), sum(sizes[batch] for batch in found.old)
        print(f"moved {size(moved)} to the trash, deleted {size(freed)}", file=sys.stderr)
        if found.busy:
            print(f"note: {found.busy} more are left, somebody has come to need or use them", file=sys.stderr)
        found = replace(found, busy=busy + found.busy)
        if found.items:
            print(
                f"a gc deletes it after {days:g} days, {_typed('ddpmkit gc --empty-trash', out)} at once; until then "
                "it is in .trash beside where it was",
                file=sys.stderr,
            )
    elif not idle:
        print("nothing was moved or deleted; --yes does it", file=sys.stderr)
    if json:
        print(json_module.dumps({**_record(found, sizes), "done": done}, indent=1), file=data())
    if found.failed:
        more = f", and {len(found.failed) - 1} more" if len(found.failed) > 1 else ""
        hint = "the rest is done; mend that and run ddpmkit gc again"
        raise DdpmkitError(f"can't move or delete {found.failed[0]}{more}", hint, code=Exit.FAILED)


def _typed(command: str, out: Path) -> str:
    """A command as one types it for that results folder."""
    return command if out == Path("results") else f"{command} --out {shlex.quote(str(out))}"


def _freeing(store: Store, out: Path) -> str:
    """The command that frees the disk of what no study needs, and how much: one gc moves it, another deletes."""
    from ddpmkit.study.garbage import find_garbage
    from ddpmkit.study.trash import size_of

    both = f"{_typed('ddpmkit gc --yes', out)} && {_typed('ddpmkit gc --empty-trash --yes', out)}"
    try:
        found = find_garbage(store, everything=True)
    except DdpmkitError:  # it can't be known now what the studies need; gc says why
        return f"{both} frees what no study needs, for good"
    needless, thrown = sum(i.size for i in found.items), sum(size_of(batch.folder) for batch in found.old)
    return (
        f"{both} frees {size(needless + thrown)} for good: {size(needless)} that no study needs, {size(thrown)} "
        "that lie in the trash"
    )


def _rows(found: Garbage, sizes: Mapping[Batch, int]) -> list[tuple[str, str, str, str]]:
    rows = [(what, str(n), size(total), "to the trash") for what, (n, total) in found.counts().items()]
    for said, batches in (("to be deleted", found.old), ("stays", found.kept)):
        if batches:
            rows.append(("in the trash", str(len(batches)), size(sum(sizes[b] for b in batches)), said))
    return rows


def _record(found: Garbage, sizes: Mapping[Batch, int]) -> dict[str, object]:
    return {
        "items": [{"what": i.what, "path": str(i.path), "bytes": i.size} for i in found.items],
        "delete": [{"path": str(b.folder), "days": b.days, "bytes": sizes[b]} for b in found.old],
        "trash": [{"path": str(b.folder), "days": b.days, "bytes": sizes[b]} for b in found.kept],
        "busy": found.busy,
        "failed": list(found.failed),
    }


def _asked() -> bool:
    """Ask, where somebody is there to answer."""
    return sys.stdin is not None and sys.stdin.isatty() and typer.confirm("do it?", err=True)


def _store(out: Path) -> Store:
    from ddpmkit.study.store import Store

    return Store(out)
