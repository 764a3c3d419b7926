"""What the name of a study may be: that of a folder, on any system."""

from __future__ import annotations

import re

from ddpmkit.errors import DdpmkitError

LONGEST = 80  # characters
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST - 1}}}")


def check_name(name: str) -> str:
    """Return the name of a study if it can be a folder's.

    Raises:
        DdpmkitError: when it can't.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise DdpmkitError(
            f"'{name}' can't be the name of a study",
            f"use up to {LONGEST} letters, digits, '.', '_' and '-', starting with a letter or digit",
        )
    return name
