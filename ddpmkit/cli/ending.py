"""The end of the command: what somebody else's code has left running can't hold it up for ever."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import FrameType

PATIENCE = 5.0  # seconds that a thread is given to end by itself, as pools do when Python asks them to


def dont_wait_for_ever(code: int) -> None:
    """Have this process end with an exit code, though a thread that Python waits for may never end.

    Threads are given PATIENCE first; then one line a thread says which is not waited for, and where it is.
    """
    if any(_waited_for(thread) for thread in threading.enumerate()):
        threading.Thread(target=_end, args=(code,), daemon=True).start()


def _end(code: int) -> None:
    time.sleep(PATIENCE)
    left = [thread for thread in threading.enumerate() if _waited_for(thread)]
    if not left:  # Python is at its end by itself, where others may still have something to write
        return
    frames = sys._current_frames()
    for thread in left:
        where = _began(frames.get(thread.ident or 0))
        print(f"warning: the thread '{thread.name}'{where} is still running and is not waited for", file=sys.stderr)
    sys.stderr.flush()
    os._exit(code)


def _began(frame: FrameType | None) -> str:
    """Where in the function that a thread was started with it is, as file and line."""
    place = ""
    while frame is not None:
        if frame.f_code.co_filename != threading.__file__:
            place = f" ({frame.f_code.co_filename} line {frame.f_lineno})"
        frame = frame.f_back
    return place


def _waited_for(thread: threading.Thread) -> bool:
    return not thread.daemon and thread is not threading.main_thread()
