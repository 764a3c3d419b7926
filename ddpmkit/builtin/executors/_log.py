"""What a stage prints, kept in its folder: the first part and the last part of it, whatever its length."""

from __future__ import annotations

import codecs
import contextlib
from pathlib import Path
from typing import IO

from ddpmkit import inert

NAME = "log.txt"
HEAD = TAIL = (1 << 19) - 32  # bytes kept of the first part, and of the last: a MiB with the line between
LAST = 20  # lines shown of a stage that failed
WIDTH = 200  # characters shown of a line


class Log:
    """The log of one attempt at a stage: UTF-8 at ``path``, at most ``HEAD`` + ``TAIL`` bytes and a line between.

    The file appears with the first byte after :meth:`begin`, which is called when the stage is ours: until then another
    process may be at work on it, whose log this would replace. The first part is written as it comes, the last one by
    :meth:`finish`; memory holds the first part, and no more than twice the last one. A disk that is full costs the log
    and nothing else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0
        self._file: IO[bytes] | None = None
        self.begun = False

    def begin(self) -> None:
        """Replace the log of an earlier attempt by this one."""
        self.begun = True
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            if self._head:
                self._open()

    def write(self, data: bytes, *, final: bool = False) -> None:
        """Take in bytes of any kind; what is no UTF-8 is replaced."""
        new = self._decoder.decode(data, final).encode()
        room = HEAD - len(self._head)
        if room > 0 and not self._tail:
            part = new if len(new) <= room else new[:room].decode(errors="ignore").encode()
            self._head += part
            new = new[len(part) :]
            if self.begun and part:
                with contextlib.suppress(OSError):
                    if self._file is None:
                        self._open()
                    else:
                        self._file.write(part)
        if new:
            self._tail += new
            if len(self._tail) > 2 * TAIL:
                self._left_out += len(self._tail) - TAIL
                del self._tail[:-TAIL]

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("wb", buffering=0)
        self._file.write(self._head)

    def finish(self) -> None:
        """Write the last part, and say how much was left out before it."""
        self.write(b"", final=True)
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            if self._tail:
                last = self._last_part()
                left_out = self._left_out + len(self._tail) - len(last)
                if left_out:
                    self._file.write(f"\n... {left_out:,} bytes left out here ...\n".encode())
                self._file.write(last)
        with contextlib.suppress(OSError):
            self._file.close()
        self._file = None

    def _last_part(self) -> bytes:
        return self._tail[-TAIL:].decode(errors="ignore").encode()

    def last_lines(self) -> list[str]:
        """The last lines that say something, each as a terminal would leave it standing, and harmless."""
        last = self._last_part()
        raw = last if len(last) < self._left_out + len(self._tail) else bytes(self._head[-TAIL:]) + last
        lines = []
        for line in reversed(raw.decode(errors="replace").split("\n")):
            # A progress bar writes over itself: what is seen is what came after the last carriage return.
            text = inert(line.rstrip("\r").rpartition("\r")[2][-4 * WIDTH :]).strip()
            if text:
                lines.append(text if len(text) <= WIDTH else f"... {text[-WIDTH:]}")
            if len(lines) == LAST:
                break
        return lines[::-1]
