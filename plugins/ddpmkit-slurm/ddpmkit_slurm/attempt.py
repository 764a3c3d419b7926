"""What a job does on its node: one stage in a process of its own, asked for its checkpoint when Slurm says so.

Of the launcher it knows a file of text. What comes back is text as well: ``FILE.news``, how far it is, and
``FILE.end``, how it ended. submitit calls :class:`Attempt`, and its :meth:`checkpoint` on the signal before a time
limit or a preemption, in the main thread and wherever that is; so it only asks, and waits for what a thread notes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from submitit.core.utils import DelayedSubmission, UncompletedJobError
from submitit.slurm.slurm import SlurmJobEnvironment

RUNS = ("-P", "-m", "ddpmkit.study.one")  # docs/executors.md
STATES = ("done", "failed", "diverged", "interrupted", "timed out")
NEWS, END = ".news", ".end"  # behind the name of the file
STOP = "stop"  # beside it: the launcher has been stopped, and what has not begun need not
TICK = 0.1  # seconds between two looks at the process
HEAD = TAIL = 1 << 19  # bytes kept of what a stage prints: the first ones, and the last ones
DRAIN = 2.0  # seconds for what is left in a pipe; a child of the stage that lives on may hold it open
# The shell ignores the signal for the process it becomes: Slurm sends it to every process of a job, and who does not
# know it dies of it.
DEAF = f'trap "" {SlurmJobEnvironment.USR_SIG}; exec "$@"'


class Child:
    """The process of a stage.

    Attributes:
        code: its exit code; None while it lives. Written by a thread, so that no lock of the main thread is needed.
    """

    def __init__(self, file: Path) -> None:
        command = [sys.executable, *RUNS, str(file), f"{file}{NEWS}"]
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", DEAF, "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.code: int | None = None
        self._said = b""
        streams = (self._process.stdout, self._keep_last), (self._process.stderr, _pass_on)
        self._readers = [threading.Thread(target=read, args=(stream,), daemon=True) for stream, read in streams]
        for thread in (*self._readers, threading.Thread(target=self._wait, daemon=True)):
            thread.start()

    def _wait(self) -> None:
        code = self._process.wait()
        for reader in self._readers:
            reader.join(DRAIN)
        self.code = code

    def _keep_last(self, stream: IO[bytes]) -> None:
        while data := os.read(stream.fileno(), 1 << 16):
            self._said = (self._said + data)[-(1 << 16) :]

    def ask(self) -> None:
        """Ask it for a checkpoint and the end."""
        with contextlib.suppress(OSError):
            os.kill(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            os.kill(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for its end, whatever the main thread is interrupted in."""
        while self.code is None:
            time.sleep(TICK)

    def state(self) -> tuple[str, str]:
        """How it ended, and why where it did not say it itself."""
        lines = self._said.decode(errors="replace").split("\n")
        said = lines[-2] if len(lines) > 1 else ""
        if said in STATES and self.code == (0 if said == "done" else 1):
            return said, ""
        code = self.code or 0
        if code in (-signal.SIGTERM, -getattr(signal, f"SIG{SlurmJobEnvironment.USR_SIG}")):
            return "interrupted", "it was stopped before it had begun"
        if code >= 0:
            return "failed", f"its process ended with exit code {code} and did not say how"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        memory = "; the system does that when memory runs out" if -code == signal.SIGKILL else ""
        return "failed", f"its process was killed by {name}{memory}"


def _pass_on(stream: IO[bytes]) -> None:
    """Pass what a stage prints on to the job's log, the first part as it comes, and the last part at the end."""
    room, tail, left_out = HEAD, b"", 0
    while data := os.read(stream.fileno(), 1 << 16):
        part, rest = data[:room], data[room:]
        room -= len(part)
        if part:
            _print(part)
        tail += rest
        if len(tail) > 2 * TAIL:
            left_out += len(tail) - TAIL
            tail = tail[-TAIL:]
    left_out += max(len(tail) - TAIL, 0)
    _print((f"\n... {left_out:,} bytes left out here ...\n".encode() if left_out else b"") + tail[-TAIL:])


def _print(data: bytes) -> None:
    with contextlib.suppress(OSError):  # a full disk costs the log and nothing else
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()


_running: dict[str, Child] = {}  # by file; the attempt itself holds text alone, for it is pickled


@dataclass(frozen=True)
class Attempt:
    """A stage, as submitit calls it.

    Attributes:
        file: ``{"job": .., "task": .., "grace": ..}`` as JSON.
    """

    file: str

    def __call__(self) -> str:
        """Run the stage, write how it ended to ``FILE.end``, and return it."""
        state, error = "", ""
        try:
            state, error = self._run()
        except UncompletedJobError:  # raised by submitit's handler, in whatever we were doing
            state, error = "timed out", "its time limit came too often; give it more with requeues or minutes"
        except (OSError, subprocess.SubprocessError) as err:  # that handler could not requeue the job, for one
            state, error = "interrupted", f"its job could not go on: {err}"
        _write_end(Path(self.file), state, error)
        return state

    def _run(self) -> tuple[str, str]:
        given = json.loads(Path(self.file).read_text(encoding="utf-8"))
        limit = given["job"]["timeout"]
        if Path(self.file).with_name(STOP).exists():
            return "interrupted", "it was stopped before it had begun"
        Path(f"{self.file}{NEWS}").unlink(missing_ok=True)  # of the attempt before a requeue
        try:
            child = _running[self.file] = Child(Path(self.file))
        except (FileNotFoundError, PermissionError) as err:  # no shell: another job would have none either
            return "failed", f"its process could not be started: {err}"
        # Slurm sends it to the stage too; where it reaches us alone, we pass it on.
        signal.signal(signal.SIGTERM, lambda *_: child.ask())
        begun_at, late = None, False
        while child.code is None:
            time.sleep(TICK)
            if limit is not None and begun_at is None and _begun(Path(self.file)):
                begun_at = time.monotonic()
            if begun_at is not None and not late and time.monotonic() - begun_at > limit + given["grace"]:
                late = True
                child.kill()
        state, error = child.state()
        if late and state != "done":
            return "timed out", f"it took longer than {limit:g} s, did not stop, and was killed"
        return state, error

    def checkpoint(self) -> DelayedSubmission:
        """Ask the stage for its checkpoint, and return what the requeued job runs; submitit requeues it then.

        One that has ended otherwise meanwhile, or whose launcher was stopped, is not begun again: the job ends here.
        """
        child = _running.get(self.file)
        if child is not None:
            child.ask()
            child.wait()
            state, error = child.state()
            if state != "interrupted" or Path(self.file).with_name(STOP).exists():
                _write_end(Path(self.file), state, error)
                sys.exit(0)
        # A job that was killed while it was being requeued has left its half file, on which the next would stumble.
        for half in Path(self.file).parent.glob("*_submitted.pkl.save_tmp"):
            if half.name.startswith(f"{SlurmJobEnvironment().job_id}_"):
                half.unlink(missing_ok=True)
        return DelayedSubmission(Attempt(self.file))


def _begun(file: Path) -> bool:
    try:
        return bool(json.loads(Path(f"{file}{NEWS}").read_text(encoding="utf-8"))["begun"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_end(file: Path, state: str, error: str) -> None:
    half = Path(f"{file}{END}.half")
    half.write_text(f"{state}\n{error}", encoding="utf-8")
    half.replace(f"{file}{END}")
