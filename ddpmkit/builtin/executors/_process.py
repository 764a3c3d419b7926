"""A worker as its parent sees it: a process, a channel of its own, a log of what it prints, and its end."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmkit import Job, Task, event_problem
from ddpmkit.builtin.executors._channel import CHUNK, Message, Reader, encode
from ddpmkit.builtin.executors._log import NAME, Log
from ddpmkit.builtin.executors._worker import THREADS

if TYPE_CHECKING:
    from ddpmkit.builtin.executors._leash import Leash

POLL = 0.1  # seconds between two looks at whether the process is there
LINGER = 5.0  # seconds for what should end at once: a worker that is idle, hung up, or was killed
ROUNDS = 64  # chunks read of what is left in a pipe, since a child that lives on may fill it for ever
BAD = ("failed", "diverged", "timed out")  # ends of which the last lines are shown
SPOKEN = ("ready", "log", "attempt", "progress", "end")  # events that a worker has


class Process:
    """One worker process.

    It has a session of its own: Ctrl-C reaches the parent alone, and what its stages start is in its process group and
    is killed with it. A child that makes a session of its own stays, and holds nobody up: a worker has ended when its
    process has, whoever still holds its pipes.

    Attributes:
        task: the stage that it is at work on.
        ready: whether it has started, and may have something to save.
        begun: whether it has begun with the stage, and does not wait for another process that has it.
        begun_at: when it did, on the monotonic clock.
        late: whether the parent killed it because the stage took too long.
        since: when it was started, on the monotonic clock.
        killed: whether the parent killed it.
    """

    def __init__(self, number: int, job: Job, leash: Leash, tell: Callable[[Process, Message | None], None]) -> None:
        """Start the process.

        Args:
            number: The worker's number.
            job: What the worker is told first.
            leash: What kills it when the parent is gone.
            tell: Called from another thread with each event, and with None when the process has ended.
        """
        self.number, self._job, self._leash, self._tell = number, job, leash, tell
        self.task: Task | None = None
        self.ready = self.begun = self.killed = self.late = False
        self.since = self.begun_at = time.monotonic()
        self.last_lines: list[str] = []
        self._log: Log | None = None
        self._reader, self._unsent, self._sending = Reader(), bytearray(), threading.Lock()
        self._end, theirs = socket.socketpair()
        self._output, write_end = os.pipe()
        with theirs, open(write_end, "wb", buffering=0) as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ddpmkit.builtin.executors._worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
                start_new_session=True,
            )
        leash.hold(self._process.pid)
        self._end.setblocking(False)
        os.set_blocking(self._output, False)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.send({"setup": {"job": job.json(), "device": job.device(number)}})

    def start(self, task: Task) -> None:
        """Give the worker a stage."""
        self.task, self.begun, self.last_lines = task, False, []
        self._log = Log(self.log_path(task))
        self.send({"run": asdict(task)})

    def log_path(self, task: Task) -> Path:
        """Where what a stage prints is kept."""
        return self._job.folder(task) / NAME

    def send(self, message: Message) -> None:
        """Send a message, and never wait for a worker that does not read; its end is noticed elsewhere."""
        with self._sending:
            self._unsent += encode(message)
        self._flush()

    def kill(self) -> None:
        """End the worker and all that its stages started and that is still in its group."""
        self.killed = True
        self._kill_group()

    def close(self, timeout: float) -> int:
        """Wait for the end of the process, kill it when the time is up, and return its exit code."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # not even a kill reaches it: stuck in a driver
                self._process.wait(LINGER)
        self._listener.join(LINGER)
        return -signal.SIGKILL if self._process.returncode is None else self._process.returncode

    def how_it_ended(self) -> str:
        """Its exit in words."""
        code = self._process.returncode
        if code is None or code >= 0:
            return f"its worker died with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        memory = "; the system does that when memory runs out" if -code == signal.SIGKILL else ""
        return f"its worker was killed by {name}{memory}"

    def _kill_group(self) -> None:
        with contextlib.suppress(OSError):  # none of it is left
            os.killpg(self._process.pid, signal.SIGKILL)

    def _listen(self) -> None:
        """Pass on events and keep the log until the process has ended; who else holds its pipes is not waited for."""
        hung_up: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(self._end, selectors.EVENT_READ, self._hear)
            selector.register(self._output, selectors.EVENT_READ, self._read_output)
            left = ROUNDS
            while left:
                # First the question, then the reading: what a process wrote before its end is then there to be read.
                gone = self._process.poll() is not None
                ready = selector.select(0 if gone else POLL)
                for key, _ in ready:
                    if not key.data():
                        selector.unregister(key.fileobj)
                        if key.fileobj is self._end:
                            hung_up = time.monotonic()
                if gone:
                    left = left - 1 if ready else 0
                elif hung_up is not None and time.monotonic() - hung_up > LINGER:
                    self._kill_group()  # it lives and can't be spoken to
                self._flush()
        self._kill_group()
        self._leash.let_go(self._process.pid)
        self._finish_log(failed=self.task is not None)
        self._end.close()
        os.close(self._output)
        self._tell(self, None)

    def _flush(self) -> None:
        with self._sending:
            if self._unsent:
                try:
                    del self._unsent[: self._end.send(self._unsent)]
                except BlockingIOError:
                    pass
                except OSError:
                    self._unsent.clear()

    def _hear(self) -> bool:
        """Read the channel; False when the worker has closed it."""
        try:
            data = self._end.recv(CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for event in self._reader.feed(data):
            if self._is_ours(event):
                self._take(event)
        return bool(data)

    def _is_ours(self, event: Message) -> bool:
        """Whether an event is one that a worker sends, about the stage that it has."""
        ours = () if self.task is None else (self.task.id,)
        return event.get("event") in SPOKEN and not event_problem(event, ours)

    def _take(self, event: Message) -> None:
        if event["event"] == "ready":
            self.ready = True
        elif event["event"] == "attempt" and self._log is not None:
            self.begun, self.begun_at = True, time.monotonic()
            self._log.begin()
        elif event["event"] == "end":
            for _ in range(ROUNDS):  # what it printed before it said so is in the pipe by now
                if not self._read_output(more=True):
                    break
            self._finish_log(failed=event["state"] in BAD)
        self._tell(self, event)

    def _read_output(self, *, more: bool = False) -> bool:
        """Read what was printed; False when all who could print have closed it, or, with ``more``, have not printed."""
        try:
            data = os.read(self._output, CHUNK)
        except BlockingIOError:
            return not more
        except OSError:
            return False
        if self._log is not None and data:
            self._log.write(data)
        return bool(data)

    def _finish_log(self, *, failed: bool) -> None:
        """End the log; of a stage that was refused, or that another has, none was begun and its file is left alone."""
        log, self._log = self._log, None
        if log is None:
            return
        if failed:
            self.last_lines = log.last_lines()
        log.finish()


def _environment() -> dict[str, str]:
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    # The parent's own path, and not the working folder: a queue.py in it would be imported for the library's.
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return environment
