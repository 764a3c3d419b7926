"""Labels in a figure: names as they are, acted on by nothing."""

from __future__ import annotations

from ddpmkit.text import inert


def plain(text: str) -> str:
    """A label without what matplotlib would read as mathematics."""
    return inert(text).replace("$", r"\$")


def short(text: str, limit: int = 34) -> str:
    """A label that leaves room for the drawing: of a long one both ends, since names often differ in the last word."""
    text = inert(text)
    if len(text) <= limit:
        return plain(text)
    end = (limit - 1) // 2
    return plain(text[: limit - 1 - end] + "…" + text[-end:])
