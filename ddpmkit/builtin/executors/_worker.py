"""One worker process: stages in, events out; ``python -m ddpmkit.builtin.executors._worker DESCRIPTOR``.

What it says goes over the socket whose descriptor it was given, and only there: standard input is empty, standard
output and standard error are a log. No child inherits the socket. Its other end closes when the parent is gone, however
it went, and the worker ends.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from ddpmkit.builtin.executors._channel import CHUNK, Reader, encode

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
QUIET = 0.2  # seconds between two progress lines of one stage
STOP: dict[str, Any] = {"stop": True}


class News:
    """Stands for stderr: a line that ddpmkit's own code prints goes to the user, all else to the log, as it is."""

    def __init__(self, log: TextIO, tell: Callable[[str], None]) -> None:
        self._log, self._tell, self._rest = log, tell, ""

    def __getattr__(self, name: str) -> Any:
        """Be the log in everything but :meth:`write`."""
        return getattr(self._log, name)

    def write(self, text: str) -> int:
        """Pass whole lines on to whom they are for."""
        # A module's name says more than a mark in the text: no library can flood the terminal by printing our words.
        if not str(sys._getframe(1).f_globals.get("__name__")).startswith("ddpmkit."):
            return self._log.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._tell(line)
        return len(text)


def main(descriptor: int) -> None:
    """Read ``{"setup": ...}``, then ``{"run": stage}`` until the socket closes or ``{"stop": true}`` comes."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    # A terminal's Ctrl-C does not come here; whoever sends SIGINT all the same has the parent to ask.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = socket.socket(fileno=descriptor)
    parent.set_inheritable(False)  # a child that is started does not have it, and neither does one that is forked
    os.register_at_fork(after_in_child=parent.close)
    faulthandler.enable()  # where it was when it crashed is in the log
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    last: dict[str, float] = {}
    writing = threading.Lock()

    def emit(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            now = time.monotonic()
            if now - last.get(event["stage"], -QUIET) < QUIET:
                return
            last[event["stage"]] = now
        with writing:
            parent.sendall(encode(event))

    news: Any = News(sys.stderr, lambda line: emit({"event": "log", "text": line}))
    sys.stderr = news
    stopping = threading.Event()
    todo: queue.Queue[dict[str, Any]] = queue.Queue()

    def stop() -> None:
        stopping.set()
        todo.put(STOP)

    # The handler takes no lock that the main thread may hold: a thread of its own tells the queue.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop, daemon=True).start())

    def listen() -> None:
        reader = Reader()
        with contextlib.suppress(OSError):  # the parent ended with something of ours unread
            while data := parent.recv(CHUNK):
                for message in reader.feed(data):
                    stop() if message.get("stop") else todo.put(message)
        os._exit(143)

    threading.Thread(target=listen, daemon=True).start()
    setup = todo.get().get("setup")

    from ddpmkit import DdpmkitError, Job, Task, run_one, with_components

    if setup is None:  # stopped before it began
        os._exit(0)
    try:
        job = with_components(Job.from_json(setup["job"]))
    except DdpmkitError as err:
        emit({"event": "log", "text": f"error: {err.message}"})
        os._exit(2)
    emit({"event": "ready"})
    limits = _limits()
    while not stopping.is_set() and "run" in (message := todo.get()):
        task = Task(**message["run"])
        state = run_one(job, task, emit, stopping.is_set, device=setup["device"])
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if state != "done" and _limits() != limits:  # what the stage did to this process is nothing for the next one
            os._exit(1)
        emit({"event": "end", "stage": task.id, "state": state})
    os._exit(0)  # no interpreter teardown: what a stage left running would hold it up


def _limits() -> list[tuple[int, int]]:
    """What the system lets this process have, as the size of a file."""
    import resource

    return [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]


if __name__ == "__main__":
    main(int(sys.argv[1]))
