"""A name for several things by what their own names share."""

from __future__ import annotations

from collections.abc import Sequence


def in_common(names: Sequence[str]) -> str:
    """Return the words that all names have, in the order of the first; the names themselves where there is none.

    Of ``linear simple sampling_steps=2`` and ``linear simple sampling_steps=3`` it is ``linear simple``.
    """
    if len(names) == 1:
        return names[0]
    every = [name.split() for name in names]
    return " ".join(word for word in every[0] if all(word in words for words in every)) or ", ".join(names)
