"""A trained cell written by a package's exporter, as a folder that appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.exporters import Exporter
from ddpmkit.study.loaded import Loaded


def check_folder(to: Path) -> None:
    """Refuse a place that holds something; before a network is loaded.

    Raises:
        DdpmkitError: when there is a file, a link, or a folder that is not empty.
    """
    if os.path.lexists(to) and (to.is_symlink() or not to.is_dir() or any(to.iterdir())):
        raise DdpmkitError(f"'{to}' is there already", "--to another-name")


def write_folder(write: Exporter, loaded: Loaded, to: Path) -> list[str]:
    """Let an exporter write a cell, and return what it says to people; a failure leaves nothing behind.

    Raises:
        DdpmkitError: what the exporter raises; when ``to`` holds something, or can't be written.
    """
    check_folder(to)
    staged = to.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{to.name}")
    try:
        staged.mkdir(parents=True)
        notes = list(write(loaded, staged))
        if to.is_dir():
            to.rmdir()  # an empty one, which a rename may not replace everywhere
        staged.rename(to)
    except OSError as err:
        raise DdpmkitError(f"can't write '{to}': {err.strerror or err}", "--to another place") from err
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return [note.replace("{to}", str(to)) for note in notes]
