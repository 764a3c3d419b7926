"""Standard output is for data: what a plugin prints, or a library or a program beneath it, goes to standard error.

Descriptor 1 is pointed at descriptor 2 for as long as a command runs, so that ``os.system`` and C code are caught too;
data goes to a copy of what descriptor 1 was. Once plugins are loaded ``sys.stdout`` is standard error as well.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TextIO

_DATA: ContextVar[TextIO | None] = ContextVar("data", default=None)


def data() -> TextIO:
    """Where data is printed: the command's standard output."""
    return _DATA.get() or sys.stdout


@contextlib.contextmanager
def on_stdout() -> Iterator[None]:
    """Let ``print`` and rich write data for a moment; a decorator too. No plugin's code runs in it."""
    before, sys.stdout = sys.stdout, data()
    try:
        yield
    finally:
        sys.stdout = before


def plugins_may_print() -> None:
    """From here on only :func:`data` is standard output; called before code that is not ours is imported."""
    if _DATA.get() is not None:
        sys.stdout = sys.stderr


def open_closed_ones() -> None:
    """Open what of the first three descriptors is closed: or the next file would be written by whoever prints."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def take_stdout() -> Callable[[], None]:
    """Keep standard output for data, and return what gives it back."""
    before = sys.stdout
    if before is None:  # closed before we were started; print then prints nothing
        return lambda: None
    with contextlib.suppress(OSError, ValueError):
        before.flush()
    copy = _divert()
    own = copy is not None and _descriptor(before) == 1
    stream = _like(before, copy) if own and copy is not None else before
    token = _DATA.set(stream)
    sys.stdout = stream

    def give_back() -> None:
        _DATA.reset(token)
        sys.stdout = before
        with contextlib.suppress(OSError, ValueError):  # a reader that left was met by the command already
            stream.flush()
        if copy is not None:
            os.dup2(copy, 1)
            with contextlib.suppress(OSError):
                stream.close() if own else os.close(copy)

    return give_back


def _divert() -> int | None:
    """Point descriptor 1 at descriptor 2, and return a copy of what it was; None where it is closed."""
    try:
        copy = os.dup(1)
    except OSError:
        return None
    try:
        os.dup2(2, 1)
    except OSError:  # no standard error: what is no data goes nowhere
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    return copy


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # a test's or a notebook's stand-in has none
        return None


def _like(stream: TextIO, descriptor: int) -> TextIO:
    """A text stream to another descriptor that writes as ``stream`` does."""
    return io.TextIOWrapper(
        open(descriptor, "wb"),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.isatty(),
    )
