"""Whatever somebody else's code raises becomes an error that names its component; a real Ctrl-C stays one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ddpmkit.errors import DdpmkitError, Diverged, Interrupted
from ddpmkit.text import one_line

_PRESSED = threading.Event()


def note_press() -> None:
    """Say that the KeyboardInterrupt that is about to be raised comes from the keyboard; for handlers of signals."""
    _PRESSED.set()


def _note(number: int, frame: FrameType | None) -> None:
    note_press()
    raise KeyboardInterrupt


@contextmanager
def telling_ctrl_c_apart() -> Iterator[threading.Event]:
    """Yield what is set when a KeyboardInterrupt comes from the keyboard; code can raise one by itself."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        if before is not _note:
            _PRESSED.clear()
        yield _PRESSED  # we are inside another such block, or another handler will note a press
        return
    _PRESSED.clear()
    signal.signal(signal.SIGINT, _note)
    try:
        yield _PRESSED
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def blame(kind: str, name: str) -> Iterator[None]:
    """Turn whatever the code of a component raises into an error that names the component.

    Raises:
        DdpmkitError: with the component, and what it raised. Errors of ours and a real Ctrl-C pass unchanged.
    """
    with telling_ctrl_c_apart() as pressed:
        try:
            yield
        except (DdpmkitError, Diverged, Interrupted):
            raise
        except BaseException as err:  # it may raise anything, even an exit
            if pressed.is_set() and isinstance(err, KeyboardInterrupt):
                raise
            cause = one_line(f"{type(err).__name__}: {err}").rstrip(": ")
            raise DdpmkitError(f"{kind} '{name}' failed: {cause}", "ddpmkit -v ablate ... shows where") from err
