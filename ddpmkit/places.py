"""What is at a path: asked before it is read, so that what is wrong is said of the path and not of its reader."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ddpmkit.errors import DdpmkitError

FULL = (errno.ENOSPC, errno.EDQUOT)
MOST_READ = 8 * 2**30  # bytes of one file or folder; what it declares is looked at before anything is read


def what_is_at(path: str | Path) -> Literal["folder", "file", "other"] | None:
    """Say what a path leads to, through links; None where there is nothing, or a link to nothing.

    Raises:
        DdpmkitError: when that can't be known, as without the permission to look.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - a Path may keep silent about what it may not see
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        if err.errno == errno.ELOOP:  # links that lead to each other
            return None
        raise _unseen(path, err) from None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def names_in(folder: str | Path) -> list[str]:
    """Return the names in a folder, in order.

    Raises:
        DdpmkitError: when it can't be read.
    """
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names, and not paths
    except OSError as err:
        raise unread(folder, err) from None


def unread(path: str | Path, err: OSError) -> DdpmkitError:
    """Return the error that a file or folder can't be read."""
    return DdpmkitError(f"can't read '{path}': {err.strerror or err}", "check its permissions, and the disk")


def unwritten(err: OSError, place: str | Path | None = None) -> DdpmkitError:
    """Return the error that a file can't be written, or read: which, why, and what to do about that.

    Args:
        err: What the system says.
        place: The folder that somebody chose: named where the disk is not to blame, since another would do.
    """
    where, why, again = err.filename or place, err.strerror or str(err), "then the same command goes on from here"
    if err.errno in FULL:
        hint = f"free some space, ddpmkit gc -n says what a store can do without; {again}"
        return DdpmkitError(f"can't write '{where}': {why}", hint)
    if err.errno == errno.EIO or place is None:
        hint = f"check the disk, and the permissions of the folder; {again}"
        return DdpmkitError(f"can't read or write '{where}': {why}" if where else f"can't read or write: {why}", hint)
    return DdpmkitError(f"can't write to '{place}': {why}", "choose another --out")


def refuse_outside(root: Path, *paths: Path) -> None:
    """Refuse paths below a folder that a link leads out of it: what is changed there would be somebody else's.

    The folder itself may be a link.

    Raises:
        DdpmkitError: with where it leads.
    """
    base = os.path.realpath(root)
    for path in paths:
        real = os.path.realpath(path)
        if real != base and not real.startswith(base.rstrip(os.sep) + os.sep):
            raise DdpmkitError(
                f"'{path}' is, or lies behind, a link that leads out of '{root}', to '{real}'",
                "put the files themselves there; only the folders 'store' and 'studies' may be links",
            )


def inside(root: Path, *paths: Path) -> bool:
    """Whether no link leads out of a folder at any of these paths below it, so that what is changed is its own."""
    try:
        refuse_outside(root, *paths)
    except DdpmkitError:
        return False
    return True


def file_stamp(paths: Iterable[str | Path]) -> list[list[Any]]:
    """Return for each file its path, size and times of change: what is another where its content is.

    Raises:
        DdpmkitError: when one is not there.
    """
    out, here = [], f"{Path.cwd()}{os.sep}"
    for text in (os.fspath(path) for path in paths):
        try:
            found = os.stat(text)  # noqa: PTH116 - a Path for each of many files takes longer than all else
        except OSError as err:
            raise _unseen(text, err) from None
        whole = text if text.startswith(os.sep) else here + text
        out.append([whole, found.st_size, found.st_mtime_ns, found.st_ctime_ns])
    return out


def _unseen(path: str | Path, err: OSError) -> DdpmkitError:
    return DdpmkitError(
        f"can't look at '{path}': {err.strerror or err}", "check that it is there, and the permissions of its folders"
    )
