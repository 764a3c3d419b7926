"""Warnings are everybody's: an import may say which warnings of its own are shown, and not which of all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def of_others_kept() -> Iterator[None]:
    """Take back what would silence every warning, make errors of all, or forget the filters that were there.

    A filter with a message, a module or a category stays: libraries add such ones while they are imported.
    """
    before = list(warnings.filters)
    try:
        yield
    finally:
        now = list(warnings.filters)
        kept = [each for each in now if each not in before and not _of_all(each)] + before
        if kept != now:
            warnings.filters[:] = kept  # type: ignore[index]
            with warnings.catch_warnings():  # on its way out it has Python forget what the former ones decided
                pass


def _of_all(each: tuple[Any, ...]) -> bool:
    _, message, category, module, line = each
    return message is None and module is None and not line and issubclass(Warning, category)
