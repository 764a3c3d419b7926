"""Is a file what was written? Every kind of file that a store or a study holds answers by itself, without its reader.

A file is held against what was written beside or in it: a committed one against COMMIT.json, a record against its
seal, a line against its check. Bytes count: a record that reads as before and is not byte for byte what was written
has been damaged where it happened not to matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpmkit import files

MISSING = "is missing"
CHANGED = "is not what was written"
NO_JSON = "can't be read as JSON"
NO_SEAL = "has no seal"
SAME = "reads as before, but its bytes are not those that were written"


@dataclass(frozen=True)
class File:
    """A file that was looked at.

    Attributes:
        path: where it is, or should be.
        size: its bytes, as far as they were looked at.
        why: what is wrong with it; empty where it is whole.
    """

    path: Path
    size: int = 0
    why: str = ""


def committed(folder: Path, *, quick: bool = False) -> list[File]:
    """Look at a committed folder: its COMMIT.json first, then each file that this names.

    Args:
        folder: Where COMMIT.json is.
        quick: Whether only sizes are looked at.
    """
    before: Any = None
    while True:  # a file may have been let go while it was looked for
        commit = files.read_json(folder / files.COMMIT)
        found = list(_committed(folder, commit, quick=quick))
        if commit == before or not any(file.why for file in found):
            return found
        before = commit


def _committed(folder: Path, commit: Any, *, quick: bool) -> Iterator[File]:
    path = folder / files.COMMIT
    raw = _bytes(path)
    if isinstance(raw, File):
        yield raw
        return
    content = {k: v for k, v in commit.items() if k != "sha256"} if isinstance(commit, dict) else None
    if content is None or not isinstance(content.get("files"), dict) or not _hashes_to(content, commit.get("sha256")):
        yield File(path, len(raw), NO_JSON if commit is None else CHANGED)
        return
    same = raw == (files.canonical(commit) + "\n").encode()
    yield File(path, len(raw), "" if same else SAME)
    for name, expected in content["files"].items():
        if files.plain(name):  # else it is no name of a file here, and whoever wrote it wants another one read
            yield _listed(folder / name, expected, quick=quick)
        else:
            yield File(path, len(raw), f"names a file that is none in its folder: {name[:80]!r}")


def _listed(path: Path, expected: dict[str, Any], *, quick: bool) -> File:
    try:
        size = path.stat().st_size
        if not path.is_file():
            return File(path, 0, CHANGED)
        if size != expected["bytes"]:
            return File(path, size, f"has {size} bytes, and {expected['bytes']} were written")
        if quick:
            return File(path, size)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return File(path, 0, MISSING)
    except OSError as err:
        return File(path, 0, _unread(err))
    return File(path, size, "" if digest == expected["sha256"] else CHANGED)


def record(path: Path) -> tuple[File, Any]:
    """Look at a record that :func:`ddpmkit.files.write_sealed` wrote; return what it says, None where that is lost."""
    raw = _bytes(path)
    if isinstance(raw, File):
        return raw, None
    whole, size = files.read_json(path), len(raw)
    if not isinstance(whole, dict):
        return File(path, size, NO_JSON if whole is None else CHANGED), None
    said = files.read_sealed(path)
    if said is None:
        return File(path, size, CHANGED), None
    if files.SEAL not in whole:
        return File(path, size, NO_SEAL), said
    return File(path, size, "" if raw == _written(whole) else SAME), said


def named_by(path: Path, name: str) -> File:
    """Look at a JSON file that lies in a folder named by the hash of what it says."""
    raw = _bytes(path)
    if isinstance(raw, File):
        return raw
    said = files.read_json(path)
    if said is None or not _hashes_to(said, name):
        return File(path, len(raw), NO_JSON if said is None else CHANGED)
    return File(path, len(raw), "" if raw == _written(said) else SAME)


def lines(path: Path, *, whole: bool) -> tuple[File, Any]:
    """Look at a file of checked lines; return what the last whole one says, too.

    Args:
        path: The file.
        whole: Whether whoever wrote it has ended; until then a torn last line is one that was being written.
    """
    raw = _bytes(path)
    if isinstance(raw, File):
        return raw, None
    rows = raw.split(b"\n")
    torn, bad = rows.pop(), [n for n, row in enumerate(rows, 1) if not _checks(row)]
    said = list(files.read_lines(path))
    last = said[-1] if said else None
    if bad:
        return File(path, len(raw), f"line {bad[0]} {CHANGED}"), last
    return File(path, len(raw), "its last line is torn" if torn and whole else ""), last


def _checks(row: bytes) -> bool:
    text, tab, check = row.partition(b"\t")
    return tab == b"\t" and check == files.sha256(text)[: files.CHECK].encode()


def _written(said: Any) -> bytes:
    """The bytes that :func:`ddpmkit.files.write_json` makes of a value."""
    return (json.dumps(said, sort_keys=True, indent=1) + "\n").encode()


def _hashes_to(said: Any, digest: Any) -> bool:
    try:
        return bool(files.sha256(files.canonical(said).encode()) == digest)
    except (ValueError, RecursionError):  # a number that became infinite; lists in lists without end
        return False


def _bytes(path: Path) -> bytes | File:
    try:
        return files.read_record(path)
    except FileNotFoundError:
        return File(path, 0, MISSING)
    except OSError as err:
        return File(path, 0, _unread(err))


def _unread(err: OSError) -> str:
    return f"can't be read: {err.strerror or err}"
