"""The end of all workers when their parent is gone, however it went: by Ctrl-C, by ``kill -9``, for want of memory.

A small process waits for the end of a pipe that the parent alone holds open, and then kills the groups that it was told
of. A worker could watch the pipe itself, but not while it hangs inside a library that holds the interpreter's lock, and
the children of a stage would outlive it. Nothing here is Linux's own: macOS has pipes and process groups too.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from types import TracebackType

PATIENCE = 10.0  # seconds for it to kill what is held
SCRIPT = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
groups = set()
for line in sys.stdin.buffer:
    if line[:1] == b".":
        break
    (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Leash:
    """A context: what it holds when the process ends, or the context, is killed."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends our own group must not end it
        )

    def hold(self, group: int) -> None:
        """Take a process group."""
        self._tell(f"+{group}")

    def let_go(self, group: int) -> None:
        """Release a group that has ended; its number may come to be somebody else's."""
        self._tell(f"-{group}")

    def _tell(self, line: str) -> None:
        if self._keeper.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # somebody killed it, or it is over; workers watch us too
                self._keeper.stdin.write(line.encode() + b"\n")
                self._keeper.stdin.flush()

    def __enter__(self) -> Leash:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what is still held."""
        self._tell(".")  # a child that was forked meanwhile may hold the pipe open: its end alone would not do
        if self._keeper.stdin is not None:
            with contextlib.suppress(OSError):
                self._keeper.stdin.close()
        try:
            self._keeper.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
