"""What a worker and its parent say to each other: JSON objects, one a line, over a socket of their own."""

from __future__ import annotations

import json
from typing import Any

LONGEST = 1 << 26  # bytes of one message; what is longer is none of ours
CHUNK = 1 << 16

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    """Return a message as bytes; the leading line break parts it from whatever stray bytes came before it."""
    return b"\n" + json.dumps(message).encode() + b"\n"


class Reader:
    """Bytes in, messages out. A line that is no JSON object is passed over, and so is one without an end."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Message]:
        """Take in what arrived, and return the messages that it completes."""
        first, *lines = data.split(b"\n")
        self._keep(first)
        complete = []
        for line in lines:
            complete.append(b"".join(self._rest) if self._size <= LONGEST else b"")
            self._rest, self._size = [], 0
            self._keep(line)
        return [m for m in map(_message, complete) if m is not None]

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= LONGEST:
            self._rest.append(part)
        else:
            self._rest.clear()


def _message(line: bytes) -> Message | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
