"""Signals that wait until what Slurm has taken is in our list."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

HELD = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Keep SIGINT and SIGTERM back meanwhile: each comes when the block has ended.

    A terminal sends Ctrl-C to every process in front, thus to sbatch as well; what is started here has SIGINT blocked,
    since a mask is inherited. A handler is set too: a signal may reach another thread of ours, which blocks nothing.
    """
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    handles = threading.current_thread() is threading.main_thread()  # no other may set handlers, and none calls them
    before = {number: signal.signal(number, note) for number in HELD} if handles else {}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # what was blocked is noted now
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: of some C library
        for sent in came:
            signal.raise_signal(sent)
