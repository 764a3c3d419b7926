"""Which files of a folder are images, and what else is met on the way. docs/images.md has the rules."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.places import file_stamp, unread, what_is_at

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# Images that nobody here reads: left out aloud, since a count of images would else be short without a word.
FOREIGN = (".avif", ".exr", ".hdr", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".npy", ".npz", ".svg", ".tga")
NOT_LOOKED_AT = ("__MACOSX",)  # what archives made on a Mac carry along; names with a dot in front are hidden
NAMED = 12  # names in one line of what was left out


def silent(_: str) -> None:
    """Say nothing."""


def image_files(folder: Path, say: Callable[[str], None] = silent, *, classes: bool = False) -> list[Path]:
    """Return the image files of a folder and its subfolders, in the order of their paths.

    Hidden files and folders and ``__MACOSX`` are passed over; that images lie in subfolders is said, unless these are
    ``classes``. Symbolic links are followed; a file counts once, however many links lead to it, and a link that leads
    back to a folder above it is not followed.

    Raises:
        DdpmkitError: for a folder that can't be read, and an image's name behind which there is no file.
    """
    seen = _seen(folder)
    paths = sorted(map(Path, seen.images))
    below = sum(path.parent != folder for path in paths)
    if below and not classes:
        say(f"'{folder}': {below} of its {len(paths)} images are in subfolders")
    if seen.repeated:
        say(f"'{folder}': further names, by links, of images that count once: {seen.repeated}")
    if seen.circles:
        say(f"'{folder}': links back to a folder above them, not followed: {seen.circles}")
    if seen.nothing:
        more = " .." if len(seen.nothing) > NAMED else ""
        names = ", ".join(sorted(Path(path).name for path in seen.nothing)[:NAMED])
        say(f"'{folder}': links to nothing: {len(seen.nothing)} ({names}{more})")
    if seen.foreign:
        kinds = ", ".join(sorted({_suffix(path) for path in seen.foreign}))
        say(f"'{folder}': image files of a kind that is not read: {len(seen.foreign)} ({kinds})")
    return paths


def folder_stamp(folder: Path) -> list[Any]:
    """Return what is another where the images of a folder are, or what is said of it, as JSON.

    :func:`ddpmkit.file_stamp` of the image files, the folders, the image files that are not read, and where links lead.

    Raises:
        DdpmkitError: as :func:`image_files`.
    """
    seen = _seen(folder)
    return [file_stamp(sorted(seen.images)), *(sorted(part) for part in (seen.folders, seen.foreign, seen.links))]


@dataclass(frozen=True)
class _Seen:
    """What a folder and all below it hold, as paths in no order."""

    images: list[str]
    folders: list[str]
    foreign: list[str]
    links: list[tuple[str, str]]  # a link, and what stands in it
    nothing: list[str]  # links behind which there is nothing, and whose names are no image's
    repeated: int
    circles: int


def _seen(folder: Path) -> _Seen:
    found: dict[str, str] = {}  # real path -> the name it is read under
    links: list[tuple[str, str]] = []  # a link, and the real path of the folder it is in
    seen = _Seen([], [], [], [], [], 0, 0)
    repeated, circles = 0, 0
    entered: set[str] = set()
    real_of = functools.cache(os.path.realpath)

    def take(path: str, real: str, *, file: bool) -> None:
        nonlocal repeated
        repeated += real in found
        if not file:
            _refuse(Path(path))
        found.setdefault(real, path)

    def enter(place: str) -> None:
        real = os.path.realpath(place)
        entered.add(real)
        # Its names as they stand there: a look at each file takes long where there are many.
        for entry in _visible(place):
            suffix = _suffix(entry.name)
            if entry.is_symlink():
                links.append((entry.path, real))
            elif entry.is_dir():
                seen.folders.append(entry.path)
                enter(entry.path)
            elif suffix in SUFFIXES:
                take(entry.path, f"{real.rstrip(os.sep)}{os.sep}{entry.name}", file=entry.is_file())
            elif suffix in FOREIGN:
                seen.foreign.append(entry.path)

    def behind(path: str, place: str) -> tuple[str, str | None]:
        """The real path that a link leads to, and what is there; of thousands into one folder, by one look each."""
        told = os.readlink(path)  # noqa: PTH115
        seen.links.append((path, told))
        above, name = os.path.split(os.path.join(place, told))  # noqa: PTH118
        if name not in ("", ".", ".."):
            real = os.path.join(real_of(above), name)  # noqa: PTH118
            with contextlib.suppress(OSError):
                mode = os.lstat(real).st_mode
                if not stat.S_ISLNK(mode):
                    return real, "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
        return os.path.realpath(path), what_is_at(path)

    enter(str(folder))
    for path, place in links:  # after what is really here, so that the real names stand; further ones come meanwhile
        real, what = behind(path, place)
        if what == "folder":
            if real == place or place.startswith(real.rstrip(os.sep) + os.sep):
                circles += 1
            elif real not in entered:
                enter(path)
        elif _suffix(path) in SUFFIXES:
            take(path, real, file=what == "file")
        elif what is None:
            seen.nothing.append(path)
    return replace(seen, images=list(found.values()), repeated=repeated, circles=circles)


def _visible(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if is_visible(e.name)), key=lambda entry: entry.name)
    except OSError as err:
        raise unread(folder, err) from None


def _suffix(name: str) -> str:
    _, dot, end = name.rpartition(".")
    return dot + end.lower()


def is_visible(name: str) -> bool:
    """Whether a file or folder of that name is looked at."""
    return not name.startswith(".") and name not in NOT_LOOKED_AT


def _refuse(path: Path) -> None:
    """Refuse a name behind which there is no file: a pipe would be waited for, and a link may lead nowhere."""
    what = "is a link to nothing" if path.is_symlink() and not path.exists() else "is no file"
    raise DdpmkitError(f"'{path}' {what}", "take it out of the folder")
