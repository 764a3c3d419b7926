"""What a folder of images is: which files are looked at, and what each must be. docs/images.md has the rules."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ddpmkit.damage import DAMAGE
from ddpmkit.distances.resize import Resize, squared
from ddpmkit.errors import DdpmkitError
from ddpmkit.places import file_stamp, unread

if TYPE_CHECKING:
    from PIL import Image

Levels = np.ndarray[Any, np.dtype[np.uint8]]
Colour = Literal["auto", "grey", "rgb"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# Images that nobody here reads: left out aloud, since a count of images would else be short without a word.
FOREIGN = (".avif", ".exr", ".hdr", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".npy", ".npz", ".svg", ".tga")
NOT_LOOKED_AT = ("__MACOSX",)  # what archives made on a Mac carry along; names with a dot in front are hidden
MOST_PIXELS = 2**26  # of one image; a small file can declare more than memory holds
BITS_PER_SAMPLE = 258  # TIFF 6.0: one number a channel; where it is left out, one bit
NAMED = 12  # names in one line of what was left out
LIMIT = 8 * 2**30  # bytes, of everything that is read


def silent(_: str) -> None:
    """Say nothing."""


def read_folder(folder: Path, say: Callable[[str], None] = silent) -> Levels:
    """Return the images of a folder and its subfolders as uint8 (N, C, H, W), in the order of their paths.

    Args:
        folder: The folder.
        say: Told what was left out.

    Raises:
        DdpmkitError: when there is none, or one of them is no 8-bit grey or RGB still image without transparency of
            the size and mode of the others; the file is named.
    """
    paths = image_files(folder, say)
    if not paths:
        raise DdpmkitError(f"there are no images in '{folder}'", f"images end in {', '.join(SUFFIXES[:4])} ..")
    return read_image_files(paths)


def read_image_files(
    paths: Sequence[Path],
    *,
    size: int | None = None,
    resize: Resize = "lanczos",
    colour: Colour = "auto",
    hint: str = "all images must have one size and be all grey or all colour",
    say: Callable[[str], None] = silent,
) -> Levels:
    """Return image files as uint8 (N, C, H, W), as docs/images.md says: the one reader of images for all purposes.

    Args:
        paths: The files, at least one.
        size: Side of the square that each becomes, see :func:`ddpmkit.distances.resize.squared`; None for as they are,
            which must be one size.
        resize: How pixels become those of another size.
        colour: ``grey`` or ``rgb`` makes each so; ``auto`` takes them as they are, all grey or all colour.
        hint: What to do where sizes or colours differ.
        say: Told what was decided.

    Raises:
        DdpmkitError: for the first file that is not one still image of 8 bits a channel without transparency.
    """
    out: Levels | None = None
    smaller = 0
    for index, path in enumerate(paths):
        shape = None if out is None or size is not None else out.shape[1:]
        image, small = _read_file(path, shape, len(paths), size=size, resize=resize, colour=colour, hint=hint)
        smaller += small
        if out is None:
            out = np.empty((len(paths), *image.shape), dtype=np.uint8)
        if image.shape != out.shape[1:]:
            raise DdpmkitError(f"'{path}' is {_said(image.shape)} and '{paths[0]}' is {_said(out.shape[1:])}", hint)
        out[index] = image
    if out is None:
        raise DdpmkitError("there are no images to read", "name at least one")
    if smaller:
        say(f"images smaller than {size} x {size}, enlarged to it: {smaller} of {len(paths)}")
    return out


def image_files(folder: Path, say: Callable[[str], None] = silent) -> list[Path]:
    """Return the image files of a folder and its subfolders, in the order of their paths.

    Hidden files and folders and ``__MACOSX`` are passed over; that images lie in subfolders is said. Symbolic links
    are followed; a file counts once, however many links lead to it, and a link that leads back to a folder above it is
    not followed.

    Raises:
        DdpmkitError: for a folder that can't be read, and an image's name behind which there is no file.
    """
    paths = sorted(map(Path, _image_names(folder, say)))
    below = sum(path.parent != folder for path in paths)
    if below:
        say(f"'{folder}': {below} of its {len(paths)} images are in subfolders")
    return paths


def folder_stamp(folder: Path) -> list[list[Any]]:
    """Return :func:`ddpmkit.file_stamp` of the image files of a folder, in any order that stays.

    Raises:
        DdpmkitError: as :func:`image_files`.
    """
    return file_stamp(sorted(_image_names(folder, silent)))


def _image_names(folder: Path, say: Callable[[str], None]) -> list[str]:
    """The paths of :func:`image_files` as texts, in no order."""
    found: dict[str, str] = {}  # real path -> the name it is read under
    links: list[str] = []
    foreign: list[str] = []
    repeated, circles = 0, 0
    nothing: list[str] = []
    entered: set[str] = set()

    def take(entry: os.DirEntry[str] | str, real: str) -> None:
        nonlocal repeated
        repeated += real in found
        path = entry if isinstance(entry, str) else entry.path
        if not (Path(path).is_file() if isinstance(entry, str) else entry.is_file()):
            _refuse(Path(path))
        found.setdefault(real, path)

    def enter(place: str) -> None:
        real = os.path.realpath(place)
        entered.add(real)
        # Its names as they stand there: a look at each file takes long where there are many.
        for entry in _visible(place):
            suffix = _suffix(entry.name)
            if entry.is_symlink():
                links.append(entry.path)
            elif entry.is_dir():
                enter(entry.path)
            elif suffix in SUFFIXES:
                take(entry, f"{real.rstrip(os.sep)}{os.sep}{entry.name}")
            elif suffix in FOREIGN:
                foreign.append(suffix)

    enter(str(folder))
    while links:  # after what is really here, so that the real names stand
        path = links.pop(0)
        real = os.path.realpath(path)
        if Path(path).is_dir():
            above = os.path.realpath(Path(path).parent)
            if real == above or above.startswith(real.rstrip(os.sep) + os.sep):
                circles += 1
            elif real not in entered:
                enter(path)
        elif _suffix(Path(path).name) in SUFFIXES:
            take(path, real)
        elif not Path(path).exists():
            nothing.append(Path(path).name)
    if repeated:
        say(f"'{folder}': further names, by links, of images that count once: {repeated}")
    if circles:
        say(f"'{folder}': links back to a folder above them, not followed: {circles}")
    if nothing:
        more = " .." if len(nothing) > NAMED else ""
        say(f"'{folder}': links to nothing: {len(nothing)} ({', '.join(sorted(nothing)[:NAMED])}{more})")
    if foreign:
        say(f"'{folder}': image files of a kind that is not read: {len(foreign)} ({', '.join(sorted(set(foreign)))})")
    return list(found.values())


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


def _read_file(
    path: Path,
    shape: tuple[int, ...] | None,
    count: int,
    *,
    size: int | None,
    resize: Resize,
    colour: Colour,
    hint: str,
) -> tuple[Levels, bool]:
    """One image file as uint8 (C, H, W), and whether it was enlarged; its size is looked at before its pixels."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; the size is checked below
            with Image.open(path) as image:
                width, height = image.size
                kept = width * height if size is None else size**2
                if width * height > MOST_PIXELS:
                    raise DdpmkitError(f"'{path}' declares {width} x {height} pixels", "scale the images down first")
                grey = colour == "grey" or (colour == "auto" and image.mode in ("1", "L"))
                if (needed := kept * (1 if grey else 3) * count) > LIMIT:
                    raise DdpmkitError(
                        f"{count} images such as '{path}' take {needed / 2**30:.1f} GiB, and {LIMIT >> 30} are read at "
                        "most",
                        "use fewer images, or smaller ones; the data set folder makes them so: folder:path=..:size=64",
                    )
                # Sorted: an image that lies on its side is turned below, and its shape looked at again.
                if shape is not None and sorted((height, width)) != sorted(shape[1:]):
                    raise DdpmkitError(
                        f"'{path}' is {width} x {height} and the images before it are {shape[2]} x {shape[1]}",
                        hint,
                    )
                _check(path, image)
                image.load()
                upright: Image.Image = ImageOps.exif_transpose(image)
                plain = upright.convert({"1": "L", "P": "RGB"}.get(upright.mode, upright.mode))
                plain = plain if colour == "auto" else plain.convert("L" if colour == "grey" else "RGB")
                pixels = np.asarray(plain if size is None else squared(plain, size, resize), dtype=np.uint8)
    except Image.DecompressionBombError:
        raise DdpmkitError(f"'{path}' declares far too many pixels", "scale the images down first") from None
    except UnidentifiedImageError:
        raise DdpmkitError(f"'{path}' is no image", "take it out of the folder") from None
    except (OSError, *DAMAGE) as err:
        raise DdpmkitError(f"'{path}' can't be read: {' '.join(str(err).split())}", "write it again") from None
    small = size is not None and min(width, height) < size
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), small


def _check(path: Path, image: Image.Image) -> None:
    """Refuse what would have to be changed to become 8-bit grey or RGB levels."""
    frames = getattr(image, "n_frames", 1)
    # A phone's JPEG may carry a preview or a map of brightness behind the image; viewers show the image.
    if frames > 1 and image.format != "MPO":
        raise DdpmkitError(f"'{path}' holds {frames} frames", "write each frame to a file of its own")
    if image.has_transparency_data:
        what = "an alpha channel" if image.mode.endswith(("A", "a")) else "a transparent colour"
        raise DdpmkitError(
            f"'{path}' has {what} (mode {image.mode})", "put the image on a plain background and save it as RGB or grey"
        )
    if image.mode not in ("1", "P", "L", "RGB"):
        raise DdpmkitError(f"'{path}' has the mode {image.mode}", "use 8-bit grey or RGB without transparency")
    if _deep(image):
        raise DdpmkitError(f"'{path}' has 16 bits a channel", "use 8-bit grey or RGB without transparency")


def _deep(image: Image.Image) -> bool:
    """Whether Pillow would drop bits: it opens 16-bit colour as RGB without a word."""
    if image.format == "TIFF":  # its tiles say nothing where each channel is a plane of its own, uncompressed
        return any(bits > 8 for bits in getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, ()))
    tiles = getattr(image, "tile", [])  # (codec, place, offset, what the codec is told) of a file that was not read yet
    arguments = [a for *_, told in tiles for a in (told if isinstance(told, tuple) else (told,))]
    if image.format == "PPM":
        return any(isinstance(a, int) and a > 255 for a in arguments)
    # Not BGR;16: that is 16 bits a pixel, which Pillow widens.
    return any(isinstance(a, str) and re.search(r";16[BLN]?$", a) and not a.startswith("BGR") for a in arguments)


def _said(shape: tuple[int, ...]) -> str:
    return f"{shape[2]} x {shape[1]} {'grey' if shape[0] == 1 else 'colour'}"
