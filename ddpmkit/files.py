"""Every write to the store goes through here: staged beside the target, fsynced, renamed, the folder fsynced.

A reader sees a file whole or not at all, after a kill and after a power cut. No pickle, ever.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ddpmkit.arrays import pack as pack
from ddpmkit.arrays import pack_npz as pack_npz

COMMIT = "COMMIT.json"
CHECK = 16  # hex digits of a line's hash
MOST_RECORD = 2**30  # bytes of a record that are read; the plan of a hundred thousand results has a quarter of that
Chunk: TypeAlias = "bytes | memoryview"  # a piece of a file; a view counts bytes
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
SEAL = "seal"  # of a JSON object: the hash of everything else in it


def home(path: str | Path) -> Path:
    """Return the path with a leading ``~`` or ``~user`` written out, which a shell does not do in ``--out=~/r``."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user: a file may be called ~x, as in a shell
        return Path(path)


def canonical(value: Any) -> str:
    """Write a value as canonical JSON: sorted keys, no spaces, shortest floats, no NaN.

    Raises:
        ValueError: for a float that is not finite.
    """
    return _CANONICAL.encode(value)


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent at every moment."""
    staged = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    with _said_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_synced(staged, data)
            os.replace(staged, path)
        except BaseException:
            with contextlib.suppress(OSError):  # what failed first is what is said
                staged.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def make_bytes(path: Path, data: bytes) -> bool:
    """Make a file that is whole and new, and stays so after a power cut; False where there is one of that name."""
    staged = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    with _said_of(path):
        try:
            _write_synced(staged, data)
            if not _linked(staged, path):
                return False
        finally:
            staged.unlink(missing_ok=True)
        _sync_folder(path.parent)
    return True


def _linked(staged: Path, path: Path) -> bool:
    """Give a file its name; False where another one has it."""
    try:
        os.link(staged, path)
    except FileExistsError:  # NFS says so too of a link that it made, when its first answer was lost; link(2)
        return staged.stat().st_nlink == 2
    except OSError:  # a file system without links: an empty file first, so that of two makers one fails
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        try:
            staged.replace(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return True


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; see :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys; see :func:`write_bytes`."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n")


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON object with the hash of its own content under ``seal``; see :func:`write_json`."""
    plain = {k: v for k, v in record.items() if k != SEAL}
    write_json(path, {**plain, SEAL: sha256(canonical(plain).encode())})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Read a JSON object without its seal; None when there is none, or it is not what was sealed."""
    record = read_json(path)
    if not isinstance(record, dict):
        return None
    seal = record.pop(SEAL, None)
    try:
        return record if seal is None or seal == sha256(canonical(record).encode()) else None
    except (ValueError, RecursionError):  # a number that became infinite; lists in lists without end
        return None


def read_json(path: Path) -> Any:
    """Read JSON; None when there is no such file, it is no JSON, or none that anybody here has written."""
    try:
        return json.loads(read_record(path))
    except (OSError, ValueError, RecursionError):
        return None


def read_record(path: Path, most: int = MOST_RECORD) -> bytes:
    """Read a file that is one, and no larger: what else a name may lead to, as a pipe or a device, has no end.

    Raises:
        OSError: when it can't be read, is none, or is larger.
    """
    # Opened once, so that what is looked at is what is read; a pipe does not hold that up.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"has {found.st_size} bytes, and no more than {most} are read", str(path))
        return file.read(found.st_size)


def plain(name: Any) -> bool:
    """Whether a name that a record gives is one in a folder, and leads nowhere else."""
    return isinstance(name, str) and name not in ("", ".", "..") and {*name}.isdisjoint("/\\\0")


def commit_folder(target: Path, files: Mapping[str, bytes | Iterable[Chunk]], meta: dict[str, Any]) -> None:
    """Write a folder of files with COMMIT.json (names, sizes, SHA-256) last, so that a visible folder is complete.

    A file may be given piece by piece; it is hashed while it is written, and never whole in memory.
    A folder that is already there is left as it is: the same id always holds the same content.
    """
    staged = target.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    with _said_of(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            staged.mkdir()
            listing = {}
            for name, data in files.items():
                size, digest = _write_synced(staged / name, data)
                listing[name] = {"bytes": size, "sha256": digest}
            content = {"files": listing, "meta": meta}
            whole = {**content, "sha256": sha256(canonical(content).encode())}
            _write_synced(staged / COMMIT, (canonical(whole) + "\n").encode())
            _sync_folder(staged)
            try:
                os.rename(staged, target)
            except OSError:
                if not target.is_dir():
                    raise
            _sync_folder(target.parent)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def let_go(folder: Path, name: str) -> bytes:
    """Take a file out of the COMMIT.json of a committed folder, so that the folder is whole without it.

    Returns what COMMIT.json was; the file itself stays for the caller to move.

    Raises:
        OSError: when it can't be read or written.
    """
    before = (folder / COMMIT).read_bytes()
    content = {k: v for k, v in json.loads(before).items() if k != "sha256"}
    content["files"] = {k: v for k, v in content["files"].items() if k != name}
    whole = {**content, "sha256": sha256(canonical(content).encode())}
    write_bytes(folder / COMMIT, (canonical(whole) + "\n").encode())
    return before


def verify_folder(folder: Path, *, contents: bool = True) -> dict[str, Any] | None:
    """Return the meta of a committed folder whose every file has the size and hash it was committed with, else None.

    Without ``contents`` only the sizes are looked at, and no file is read.
    """
    before = None
    while (commit := read_json(folder / COMMIT)) != before:  # a file may have been let go while it was looked for
        meta = _verified(folder, commit, contents=contents)
        if meta is not None:
            return meta
        before = commit
    return None


def _verified(folder: Path, commit: Any, *, contents: bool) -> dict[str, Any] | None:
    if not isinstance(commit, dict) or not isinstance(commit.get("files"), dict):
        return None
    content = {k: v for k, v in commit.items() if k != "sha256"}
    if commit.get("sha256") != sha256(canonical(content).encode()):
        return None
    for name, expected in commit["files"].items():
        try:
            path = folder / name
            if not plain(name) or not path.is_file() or path.stat().st_size != expected["bytes"]:
                return None
            if not contents:
                continue
            data = path.read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if expected != {"bytes": len(data), "sha256": sha256(data)}:
            return None
    meta = commit.get("meta")
    return meta if isinstance(meta, dict) else None


def quarantine(path: Path) -> Path:
    """Move something damaged out of the way, beside where it was, and return its new place."""
    place = path.with_name(f"quarantined-{path.name}-{secrets.token_hex(4)}")
    os.rename(path, place)
    return place


def append_line(path: Path, line: str) -> None:
    """Append one line of JSON, and behind a tab the beginning of its hash, in one write."""
    with _said_of(path), path.open("ab") as file:
        file.write(_checked_line(line))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file of lines as :func:`append_line` does; see :func:`write_bytes`."""
    write_bytes(path, b"".join(map(_checked_line, lines)))


def _checked_line(line: str) -> bytes:
    return f"{line}\t{sha256(line.encode())[:CHECK]}\n".encode()


def read_lines(path: Path) -> Iterator[Any]:
    """Yield the JSON value of each whole line; a torn last line, or one that does not fit its hash, is passed over."""
    try:
        raw = read_record(path)
    except OSError:
        return
    for line in raw.split(b"\n")[:-1]:
        text, tab, check = line.partition(b"\t")
        with contextlib.suppress(ValueError, RecursionError):
            if not tab or check.decode() == sha256(text)[:CHECK]:
                yield json.loads(text)


@contextlib.contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Name the file in what the system says: of a write that fails it names none, of a staged one another."""
    try:
        yield
    except OSError as err:
        raise OSError(err.errno, err.strerror or str(err), str(path)) from err


def _write_synced(path: Path, data: bytes | Iterable[Chunk]) -> tuple[int, str]:
    """Write a new file, and return its size and SHA-256."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for chunk in (data,) if isinstance(data, bytes) else data:
            file.write(chunk)
            digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())
        return file.tell(), digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
