"""The file of a study that is asked for by name, by its folder, or by the file's own path."""

from __future__ import annotations

from pathlib import Path

from ddpmkit import files
from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.study.naming import NAME
from ddpmkit.study.store import Store

FILE = "study.toml"


def study_file(asked: str | Path, store: Store) -> tuple[Path, str | None]:
    """Return the file of a study, and its name where it was asked for by name.

    A file of that name here comes first, then a study of the results folder, then a folder that holds one.

    Raises:
        DdpmkitError: when there is nothing of that name.
    """
    path, text = files.home(asked), str(asked)
    if path.is_file():
        return path, None
    if NAME.fullmatch(text) and (found := store.study(text) / FILE).is_file():
        return found, text
    if (path / FILE).is_file():
        return path / FILE, None
    if path.suffix == ".toml" or path.name != text:
        return path, None  # a path that leads nowhere, which its reader says
    there = sorted(p.parent.name for p in (store.out / "studies").glob(f"*/{FILE}"))
    raise DdpmkitError(
        f"there is no study '{text}' in '{store.out}', and no file of that name{did_you_mean(text, there)}",
        f"studies there: {', '.join(there)}" if there else "ddpmkit ablate --schedules linear,cosine --name NAME",
    )
