"""What is thrown away is moved first, beside where it was, and deleted later.

    store/train/.trash/20261127T114500Z-1f3c/ab/ab12../     studies/.trash/20261127T114500Z-1f3c/mine/

A move is a rename within one file system, so it is whole or has not happened, takes no space and can be taken back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ddpmkit.places import inside

TRASH = ".trash"
STAMP = "%Y%m%dT%H%M%SZ"  # of a batch, in UTC; the times of what lies in it say nothing of when it was thrown away


@dataclass(frozen=True)
class Batch:
    """What one command threw away of one place."""

    home: Path  # the folder that it was taken out of
    name: str

    @property
    def folder(self) -> Path:
        """Where it lies now."""
        return self.home / TRASH / self.name

    @property
    def days(self) -> float | None:
        """How long ago it was thrown away; None where the name does not say."""
        try:
            then = datetime.strptime(self.name.partition("-")[0], STAMP).replace(tzinfo=UTC)
        except ValueError:
            return None
        return (time.time() - then.timestamp()) / 86400


def new_batch() -> str:
    """Return the name of a batch that begins now."""
    return f"{time.strftime(STAMP, time.gmtime())}-{secrets.token_hex(2)}"


def throw_away(path: Path, home: Path, batch: str) -> Path:
    """Move a path that lies somewhere below ``home`` into the trash of it, and return its new place.

    Raises:
        OSError: when it can't be moved; it then is where it was.
    """
    to = home / TRASH / batch / path.relative_to(home)
    _move(home, path, to)
    return to


def take_back(path: Path, batch: Batch) -> bool:
    """Move a path of a batch back to where it was; False where something is there again.

    Raises:
        OSError: when it can't be moved; it then is where it was.
    """
    to = batch.home / path.relative_to(batch.folder)
    if to.exists():
        return False
    _move(batch.home, path, to)
    for parent in path.parents:  # what is empty now, up to the batch
        if parent == batch.home / TRASH:
            break
        with contextlib.suppress(OSError):
            parent.rmdir()
    return True


def batches(home: Path) -> list[Batch]:
    """Return what was thrown away of a place, the latest last."""
    try:
        names = sorted(p.name for p in (home / TRASH).iterdir()) if inside(home, home / TRASH) else []
    except OSError:
        return []
    return [Batch(home, name) for name in names]


def delete(batch: Batch) -> None:
    """Delete a batch for good; a link in it is deleted, and not what it leads to.

    Raises:
        OSError: when something can't be deleted; the rest of it stays too.
    """
    shutil.rmtree(batch.folder)
    with contextlib.suppress(OSError):  # others are there
        (batch.home / TRASH).rmdir()


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; links are not followed."""
    if path.is_symlink() or path.is_file():
        return _bytes(path)
    return sum(_bytes(Path(root) / name) for root, _, names in os.walk(path) for name in names)


def _move(home: Path, path: Path, to: Path) -> None:
    """Rename within a folder, where no link leads out of it on either way."""
    if not inside(home, path.parent, to.parent, home / TRASH):
        raise OSError(errno.ELOOP, "a link leads out of the store", str(path))
    to.parent.mkdir(parents=True, exist_ok=True)
    os.rename(path, to)


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # it has just gone
        return 0
