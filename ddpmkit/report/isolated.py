"""What a picture may cost: a line of warning, and no result and no other picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def isolated(what: str) -> Iterator[None]:
    """Say what could not be drawn, and go on: a picture costs no results, and no other picture."""
    try:
        yield
    except Exception as err:  # a drawing library raises what it likes, and samples may be damaged
        print(f"warning: {what} could not be drawn: {type(err).__name__}: {err}", file=sys.stderr)
