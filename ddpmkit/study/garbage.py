"""What a store can do without: stages that no study needs, and of finished trainings what nothing reads any more.

Everything is moved to the trash first (study/trash.py). A stage is moved under its own claim, so that nobody is at work
on it; plans are read when the place of the collection is claimed, so that a study which begins meanwhile is seen, or
sees the collection (study/presence.py).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ddpmkit import files
from ddpmkit.study.claim import Claim, claimed, holder
from ddpmkit.study.needs import Key, Needs, all_needs
from ddpmkit.study.presence import COLLECTION, collecting, let_go_of_claims
from ddpmkit.study.records import TrainRecord
from ddpmkit.study.sharing import SHARED
from ddpmkit.study.stages import STAGE_KINDS
from ddpmkit.study.store import Store
from ddpmkit.study.trash import Batch, batches, delete, new_batch, size_of, throw_away
from ddpmkit.study.trunks import needed_by_longer

DAY = 86400.0  # seconds after which what was staged and never committed is nobody's
OPTIM = "optim.safetensors"

STAGES = "stages that no study needs"
EARLIER = "earlier checkpoints of finished trainings"
OPTIMISERS = "optimiser states of finished trainings"
DATA = "decoded data that no study needs"
LEFT = "what was damaged and set aside, or never finished"


@dataclass(frozen=True)
class Item:
    """Something that a store can do without.

    Attributes:
        what: why.
        path: where it is.
        home: the folder whose trash it goes to.
        size: its bytes.
        stage: the folder of the stage that it belongs to; None where it is no stage's.
    """

    what: str
    path: Path
    home: Path
    size: int
    stage: Path | None = None


@dataclass(frozen=True)
class Garbage:
    """What can be moved to the trash, or was, and what in the trash can be deleted, or was.

    Attributes:
        items: what is moved.
        old: what is deleted.
        kept: what stays in the trash.
        busy: number of things that were left since somebody uses them.
        failed: what could not be moved or deleted, and why, a line each.
    """

    items: tuple[Item, ...]
    old: tuple[Batch, ...]
    kept: tuple[Batch, ...]
    busy: int
    failed: tuple[str, ...] = ()

    def counts(self) -> dict[str, tuple[int, int]]:
        """Reason -> number of things and their bytes, in a fixed order."""
        order = (STAGES, EARLIER, OPTIMISERS, DATA, LEFT)
        found = {what: [i.size for i in self.items if i.what == what] for what in order}
        return {what: (len(sizes), sum(sizes)) for what, sizes in found.items() if sizes}


def homes(store: Store) -> list[Path]:
    """Return the folders that have a trash: those of the kinds of stage, of data, of other records, of the studies."""
    return [*(store.root / kind for kind in STAGE_KINDS), store.root / "data", store.root, store.out / "studies"]


def find_garbage(store: Store, *, deep: bool = False, days: float = 14, everything: bool = False) -> Garbage:
    """Look for what a store can do without; moves nothing.

    Args:
        store: The store.
        deep: The optimiser states of finished trainings too; a longer training then starts again.
        days: What has been in the trash for longer can be deleted.
        everything: Whatever is in the trash can be.

    Raises:
        DdpmkitError: when it can't be known what the studies need, or a folder of the store leads out of it.
    """
    store.check_links()
    items, busy = _items(store, all_needs(store), deep=deep)
    thrown = [batch for home in homes(store) for batch in batches(home)]
    old = [b for b in thrown if everything or (b.days is not None and b.days > days)]
    return Garbage(tuple(items), tuple(old), tuple(b for b in thrown if b not in old), busy)


def collect(store: Store, found: Garbage, *, deep: bool = False, on_done: Callable[[], None] = lambda: None) -> Garbage:
    """Move what was found to the trash, and delete what was old in it; return what was really moved and deleted.

    What has come to be needed or used since it was found stays, and so does what can't be moved.

    Raises:
        DdpmkitError: when another collection is at work, a folder of the store leads out of it, or it can't be known
            any more what the studies need.
    """
    run, batch = secrets.token_hex(8), new_batch()
    moved, deleted, failed, busy = list[Item](), list[Batch](), list[str](), 0
    with collecting(store, run):
        still = {(i.what, i.path) for i in _items(store, all_needs(store), deep=deep)[0]}
        for item in found.items:
            try:
                done = (item.what, item.path) in still and _move(item, batch, run)
            except OSError as err:  # the others may well be moved
                failed.append(f"'{item.path}': {err.strerror}")
            else:
                moved += [item] if done else []
                busy += not done
            on_done()
        for old in found.old:
            try:
                delete(old)
                deleted.append(old)
            except FileNotFoundError:  # another gc was faster
                continue
            except OSError as err:
                failed.append(f"'{old.folder}': {err.strerror}")
    return Garbage(tuple(moved), tuple(deleted), found.kept, busy, tuple(failed))


def _items(store: Store, needs: Needs, *, deep: bool) -> tuple[list[Item], int]:
    needed, items, busy = needs.stages(), list[Item](), 0
    for kind in STAGE_KINDS:
        home = store.root / kind
        for stage in store.stages(kind):
            folder = store.folder(kind, stage)
            found = [] if (kind, stage) in needed else [Item(STAGES, folder, home, size_of(folder), folder)]
            if not found:
                found = [
                    Item(what, path, home, size_of(path), folder)
                    for what, path in (*_left(folder), *_spare(store, kind, stage, needed, deep=deep))
                ]
            if found and holder(folder) is not None:
                busy += 1
                continue
            items += found
    return [*items, *_data(store, needs), *_strays(store)], busy


def _spare(store: Store, kind: str, stage: str, needed: Collection[Key], *, deep: bool) -> Iterator[tuple[str, Path]]:
    """What nothing reads any more of a finished training: later stages read its last weights, longer ones its trunk."""
    record = store.record(TrainRecord, stage) if kind == TrainRecord.kind else None
    if record is None:
        return
    folder = store.folder(kind, stage) / "ckpt"
    last = folder / f"{record.steps:08d}"
    if files.verify_folder(last, contents=False) is None:
        return  # an earlier one may be all that there is
    kept = (last, *(() if deep else needed_by_longer(store, stage, lambda other: (kind, other) in needed)))
    yield from ((EARLIER, path) for path in sorted(folder.glob("[0-9]*")) if path.is_dir() and path not in kept)
    if deep and (last / OPTIM).is_file():
        yield OPTIMISERS, last / OPTIM


def _left(folder: Path) -> Iterator[tuple[str, Path]]:
    for place in (folder, folder / "ckpt"):
        yield from ((LEFT, path) for path in sorted(place.glob("quarantined-*")))
        yield from ((LEFT, path) for path in sorted(place.glob(".tmp-*")) if _forgotten(path))


def _data(store: Store, needs: Needs) -> Iterator[Item]:
    """Decoded data that no study was made with; with the stamps by which these would be found again."""
    home, needed = store.root / "data", needs.data()
    for path in sorted(home.glob("*")) if home.is_dir() else ():
        if (path.name.startswith(".tmp-") and _forgotten(path)) or path.name.startswith("quarantined-"):
            yield Item(LEFT, path, home, size_of(path))
        elif (path / files.COMMIT).exists() and path.name not in needed:
            yield Item(DATA, path, home, size_of(path))


def _strays(store: Store) -> Iterator[Item]:
    """What was staged for a record that is no stage's and never got its name, since its process was killed."""
    root, studies = store.root, store.out / "studies"
    data = [root / "data" / name for name in ("stamps", "answers")]
    of_store = [root, *(root / name for name in ("paces", "layouts", SHARED, COLLECTION))]
    of_studies = [place for study in studies.glob("*/") for place in (study, study / "figures")]
    for home, places in ((root / "data", data), (root, of_store), (studies, of_studies)):
        for path in sorted(path for place in places for path in place.glob(".tmp-*")):
            if _forgotten(path):
                yield Item(LEFT, path, home, size_of(path))


def _forgotten(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > DAY
    except OSError:
        return False


def _move(item: Item, batch: str, run: str) -> bool:
    """Move one thing; False where somebody is at work on it, or it is not there any more."""
    if not item.path.exists() and not item.path.is_symlink():
        return False
    if item.stage is None:
        throw_away(item.path, item.home, batch)
        return True
    with claimed(item.stage, run) as held:
        if isinstance(held, Claim):
            return False
        if item.what in (EARLIER, OPTIMISERS) and not _whole(item):
            return False
        if item.what == OPTIMISERS:
            _let_go(item, batch)
            return True
        there = throw_away(item.path, item.home, batch)
        if item.what == STAGES:  # our own claim went with it
            let_go_of_claims(there)
    return True


def _whole(item: Item) -> bool:
    """Whether the last checkpoint of a finished training is what was committed, byte for byte."""
    if item.stage is None:
        return False
    checkpoints = sorted(p for p in (item.stage / "ckpt").glob("[0-9]*") if p.is_dir())
    return bool(checkpoints) and files.verify_folder(checkpoints[-1]) is not None


def _let_go(item: Item, batch: str) -> None:
    """Move one file of a checkpoint, which is whole without it; its list of files as it was goes with it."""
    commit = files.let_go(item.path.parent, item.path.name)
    there = throw_away(item.path, item.home, batch)
    files.write_bytes(there.with_name(files.COMMIT), commit)
