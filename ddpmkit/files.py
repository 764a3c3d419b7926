"""Every write to the store goes through here: staged beside the target, fsynced, renamed, the folder fsynced.

A reader sees a file whole or not at all, after a kill and after a power cut. No pickle, ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ddpmkit.errors import DdpmkitError

COMMIT = "COMMIT.json"
CHECK = 16  # hex digits of a line's hash
Chunk: TypeAlias = "bytes | memoryview"  # a piece of a file; a view counts bytes
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
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent at every moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        _write_synced(staged, data)
        os.replace(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def make_bytes(path: Path, data: bytes) -> bool:
    """Make a file that is whole and new, and stays so after a power cut; False where there is one of that name."""
    staged = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        _write_synced(staged, data)
        try:
            os.link(staged, path)
        except FileExistsError:  # NFS says so too of a link that it made, when its first answer was lost; link(2)
            if staged.stat().st_nlink != 2:
                return False
        except OSError:  # a file system without links: an empty file first, so that of two makers one fails
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                return False
            staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    _sync_folder(path.parent)
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
    except ValueError:  # a number that became infinite
        return None


def read_json(path: Path) -> Any:
    """Read JSON; None when there is no such file or it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def pack(arrays: Mapping[str, Any], meta: Mapping[str, str] | None = None) -> bytes:
    """Return named NumPy arrays or torch tensors as a .safetensors file that reads back with the same values.

    The one place where arrays become bytes. The format knows C order and little-endian numbers alone, and its writer
    takes the memory as it lies: a view, a transposed, channels-last, byte-swapped or lazily negated array would be
    read back as other numbers. Shapes stay, 0-d and empty ones too, and so do dtypes, bfloat16 of tensors included.

    Args:
        arrays: Name -> array of any layout, on any device; all arrays or all tensors.
        meta: Text that goes with them.

    Raises:
        DdpmkitError: for an array of a dtype that has no place in the format.
    """
    import numpy as np
    import safetensors.numpy

    try:
        if any(hasattr(a, "detach") for a in arrays.values()):  # known without importing torch
            import safetensors.torch

            # clone: tied weights share memory, which the format has no word for.
            plain = {k: a.detach().resolve_conj().resolve_neg().cpu().contiguous().clone() for k, a in arrays.items()}
            return safetensors.torch.save(plain, dict(meta) if meta else None)
        ordered = {k: np.asarray(a, order="C") for k, a in arrays.items()}  # ascontiguousarray makes 0-d arrays 1-d
        native = {k: a.astype(a.dtype.newbyteorder("="), copy=False) for k, a in ordered.items()}
        return safetensors.numpy.save(native, dict(meta) if meta else None)
    except (TypeError, ValueError, KeyError, safetensors.SafetensorError) as err:
        held = ", ".join(f"{k} {a.dtype}" for k, a in arrays.items())
        raise DdpmkitError(f"arrays that can't be stored ({held}): {err}", "use floats, integers or booleans") from None


def pack_npz(arrays: Mapping[str, Any]) -> bytes:
    """Return arrays as a compressed .npz archive, for who reads them elsewhere; nothing of the store is one."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def commit_folder(target: Path, files: Mapping[str, bytes | Iterable[Chunk]], meta: dict[str, Any]) -> None:
    """Write a folder of files with COMMIT.json (names, sizes, SHA-256) last, so that a visible folder is complete.

    A file may be given piece by piece; it is hashed while it is written, and never whole in memory.
    A folder that is already there is left as it is: the same id always holds the same content.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    staged.mkdir()
    try:
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
            if not contents:
                if path.stat().st_size != expected["bytes"]:
                    return None
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
    with path.open("ab") as file:
        file.write(_checked_line(line))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file of lines as :func:`append_line` does; see :func:`write_bytes`."""
    write_bytes(path, b"".join(map(_checked_line, lines)))


def _checked_line(line: str) -> bytes:
    return f"{line}\t{sha256(line.encode())[:CHECK]}\n".encode()


def read_lines(path: Path) -> Iterator[Any]:
    """Yield the JSON value of each whole line; a torn last line, or one that does not fit its hash, is passed over."""
    try:
        raw = path.read_bytes()
    except OSError:
        return
    for line in raw.split(b"\n")[:-1]:
        text, tab, check = line.partition(b"\t")
        with contextlib.suppress(ValueError):
            if not tab or check.decode() == sha256(text)[:CHECK]:
                yield json.loads(text)


def _write_synced(path: Path, data: bytes | Iterable[Chunk]) -> tuple[int, str]:
    """Write a new file, and return its size and SHA-256."""
    size, digest = 0, hashlib.sha256()
    with path.open("xb") as file:
        for chunk in (data,) if isinstance(data, bytes) else data:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
