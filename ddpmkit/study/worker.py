"""One worker process: stages in, events out, a line of JSON each; ``python -m ddpmkit.study.worker``.

The parent's end of stdin is the worker's leash: when it closes, however the parent died, the worker is gone too.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
QUIET = 0.2  # seconds between two progress lines of one stage


class Lines:
    """A stream that hands every whole line to the parent as an event, in place of stdout and stderr."""

    def __init__(self, emit: Any) -> None:
        self._emit, self._rest = emit, ""

    def write(self, text: str) -> int:
        """Collect text and pass whole lines on."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._emit({"event": "log", "text": line})
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        """No terminal."""
        return False


def main() -> None:
    """Read ``{"setup": ...}``, then ``{"run": stage}`` until stdin closes or ``{"stop": true}`` comes."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    # Ctrl-C reaches the whole group; the parent decides, and tells us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    last: dict[str, float] = {}
    writing = threading.Lock()

    def emit(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            now = time.monotonic()
            if now - last.get(event["stage"], -QUIET) < QUIET:
                return
            last[event["stage"]] = now
        with writing:
            out.write(json.dumps(event) + "\n")

    sys.stdout = sys.stderr = Lines(emit)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    todo: queue.Queue[dict[str, Any]] = queue.Queue()
    setup = json.loads(sys.stdin.readline())["setup"]

    def listen() -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message.get("stop"):
                stopping.set()
            todo.put(message)
        os._exit(143)

    threading.Thread(target=listen, daemon=True).start()

    from ddpmkit.errors import DdpmkitError
    from ddpmkit.plugin.registry import Registry
    from ddpmkit.study.config import RunOptions
    from ddpmkit.study.plan import Stage
    from ddpmkit.study.stages import execute
    from ddpmkit.study.store import Store

    try:
        registry = Registry(setup["plugins"], installed=setup["installed"], quiet=True)
    except DdpmkitError as err:
        emit({"event": "log", "text": f"error: {err.message}"})
        os._exit(2)
    store, options = Store(Path(setup["out"])), RunOptions(**setup["options"])
    emit({"event": "ready"})
    while True:
        message = todo.get()
        if message.get("stop"):
            break
        stage = Stage.from_json(message["run"])
        state = execute(stage, store, registry, options, emit, stopping.is_set)
        emit({"event": "end", "stage": stage.id, "state": state})
        if stopping.is_set():
            break
    out.flush()
    os._exit(0)  # no interpreter teardown: the listening thread still holds stdin


if __name__ == "__main__":
    main()
