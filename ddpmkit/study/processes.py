"""What is known of a process: on which machine its number means something, and whether it is no more."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from functools import cache
from pathlib import Path


@cache
def here() -> tuple[str, str, str, str]:
    """This machine's name, its id, its boot, and the name space of its process numbers."""
    space = ""
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return socket.gethostname(), _text("/etc/machine-id"), _text("/proc/sys/kernel/random/boot_id"), space


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def ended(pid: int, born: str) -> bool:
    """Whether it is known that a process is no more: no such number, a zombie, or another one of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's; /proc may be hidden from us as well, and what can't be read proves nothing
    state, began = stat(pid)
    return state in ("Z", "X") or bool(began and born and began != born)


def stat(pid: int) -> tuple[str, str]:
    """The state of a process, and when it began, in clock ticks since the boot; empty where the system says nothing."""
    if sys.platform != "linux":
        return "", ""
    # The name, in parentheses, may hold anything; the 22nd field is the 20th behind it. Linux, proc_pid_stat(5).
    behind = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (behind[0], behind[19]) if len(behind) > 19 else ("", "")
