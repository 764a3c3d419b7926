"""What a job printed: kept beside its stage, and its last lines for the user."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ddpmkit import inert

MOST = 1 << 20  # bytes kept
LAST, WIDTH = 20, 200  # lines shown of what went wrong, and characters of each


def keep_log(log: Path, kept: Path) -> None:
    """Copy the last MiB of a job's log to a stage's log.txt; a full disk costs the log and nothing else."""
    with contextlib.suppress(OSError):
        half = kept.with_name(f"{kept.name}.half")
        data = _end_of(log)
        half.unlink(missing_ok=True)
        with half.open("xb") as file:  # a file of its own: a link that somebody put there leads elsewhere
            file.write(data)
        half.replace(kept)


def last_lines(log: Path) -> list[str]:
    """Return the last lines that say something, each as a terminal would leave it standing, and harmless."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        for line in reversed(_end_of(log).decode(errors="replace").split("\n")):
            text = inert(line.rstrip("\r").rpartition("\r")[2][-4 * WIDTH :]).strip()
            if text:
                lines.append(text if len(text) <= WIDTH else f"... {text[-WIDTH:]}")
            if len(lines) == LAST:
                break
    return lines[::-1]


def _end_of(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - MOST, 0))
        return file.read(MOST)
