"""Several results folders with one store: a store that is a link, or is linked to, knows whose studies rest on it.

    here/store -> /big/results/store      /big/results/store/shared/<hash>.json {"out": "/projects/here"}

Whoever runs a study over a link, lists or reports one leaves that record, or a collection of garbage in the one folder
would take what the other's studies need.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ddpmkit import files
from ddpmkit.study.store import Store

SHARED = "shared"


def register(store: Store) -> None:
    """Leave word in a store that is linked to that this results folder's studies rest on it.

    Raises:
        OSError: when it can't be written.
    """
    here, root = store.out.resolve(), store.root.resolve()
    if root == here / "store":
        return
    path = root / SHARED / f"{files.sha256(str(here).encode())[:16]}.json"
    if not path.exists():
        files.write_json(path, {"out": str(here)})


def remember(store: Store) -> None:
    """Leave that word for a results folder that is only read: its studies may be older than such records.

    A store that can't be written is read all the same, and nobody collects in it.
    """
    if store.root.is_dir() and any((store.out / "studies").glob("*/plan.json")):
        with contextlib.suppress(OSError):
            register(store)


def results_folders(store: Store) -> tuple[list[Path], list[Path]]:
    """Return the results folders whose studies rest on a store, and those that left word and are not there now."""
    here, root = store.out.resolve(), store.root.resolve()
    told = [files.read_json(path) for path in sorted((root / SHARED).glob("*.json"))]
    known = [Path(record["out"]) for record in told if isinstance(record, dict) and isinstance(record.get("out"), str)]
    there, gone = [here], list[Path]()
    for out in (root.parent, *known):
        if (out / "store").resolve() == root:
            there += [out] if out not in there else []
        elif out in known:
            gone.append(out)
    return there, gone


def forget(store: Store, out: Path) -> bool:
    """Take back the word that a results folder left; False where it left none."""
    found = False
    for path in (store.root.resolve() / SHARED).glob("*.json"):
        record = files.read_json(path)
        if isinstance(record, dict) and record.get("out") in (str(out), str(out.resolve())):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            found = True
    return found
