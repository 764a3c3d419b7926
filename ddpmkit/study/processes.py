"""What is known of a process: on which machine its number means something, and whether it is no more.

Linux says it in ``/proc``; macOS, which has neither that nor an id of the machine in a file, when it is asked by
``sysctl`` and ``ps``. Where the system does not say which start of the machine this is, no process is known to be gone
but one's own: another machine may have the same name. So it is on macOS with a process from before a restart.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path


@cache
def here() -> tuple[str, str, str, str]:
    """This machine's name, its id, its boot, and the name space of its process numbers; empty where nothing is said."""
    if sys.platform == "darwin":  # a number drawn at each start, in XNU's bsd/kern/kern_sysctl.c
        return socket.gethostname(), "", _said("sysctl", "-n", "kern.bootsessionuuid"), ""
    space = ""
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return socket.gethostname(), _text("/etc/machine-id"), _text("/proc/sys/kernel/random/boot_id"), space


def booted() -> float:
    """When this machine was started, in seconds since 1970 by its own clock; 0 where the system does not say."""
    for line in _text("/proc/stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "btime":
            return float(value)
    return 0.0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _said(*command: str) -> str:
    """What a program of the system prints, the same in every language and time zone; empty where it fails."""
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


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
    """The state of a process, and when it began: in clock ticks since the boot, on macOS by the second; else empty."""
    if sys.platform == "darwin":
        state, _, born = _said("ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)).partition(" ")
        return state[:1], " ".join(born.split())
    # The name, in parentheses, may hold anything; the 22nd field is the 20th behind it. Linux, proc_pid_stat(5).
    behind = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (behind[0], behind[19]) if len(behind) > 19 else ("", "")
