"""Text from outside, made harmless before it is shown."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    """Take out control characters, ANSI escapes and direction marks."""
    return _CONTROL.sub("", text)
