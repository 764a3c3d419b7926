"""What an image file must be, and its pixels. docs/images.md has the rules."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ddpmkit.damage import DAMAGE
from ddpmkit.distances.listing import SUFFIXES, image_files, silent
from ddpmkit.distances.resize import Resize, squared
from ddpmkit.errors import DdpmkitError, check_choice
from ddpmkit.places import MOST_READ

if TYPE_CHECKING:
    from PIL import Image

Levels = np.ndarray[Any, np.dtype[np.uint8]]
Colour = Literal["auto", "grey", "rgb"]

MOST_PIXELS = 2**26  # of one image; a small file can declare more than memory holds
MOST_BYTES = 2**29  # of one file; so many pixels, uncompressed, have no more
# What is decoded, whatever a name ends in: Pillow reads forty other formats too, and hands one of them, PostScript, to
# a program that runs it.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM")  # a phone's MPO is a JPEG
BITS_PER_SAMPLE = 258  # TIFF 6.0: one number a channel; where it is left out, one bit


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
        DdpmkitError: for the first file that is not one still image of 8 bits a channel without transparency, and for
            another colour or way to resize.
    """
    check_choice("resize", resize, get_args(Resize))
    check_choice("colour", colour, get_args(Colour))
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
        if (size_of_file := path.stat().st_size) > MOST_BYTES:
            raise DdpmkitError(
                f"'{path}' has {size_of_file / 2**30:.1f} GiB, and images are read up to {MOST_BYTES >> 20} MiB",
                "write it again without what is attached to it, or take it out",
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; the size is checked below
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                kept = width * height if size is None else size**2
                if width * height > MOST_PIXELS:
                    raise DdpmkitError(f"'{path}' declares {width} x {height} pixels", "scale the images down first")
                grey = colour == "grey" or (colour == "auto" and image.mode in ("1", "L"))
                if (needed := kept * (1 if grey else 3) * count) > MOST_READ:
                    raise DdpmkitError(
                        f"{count} images such as '{path}' take {needed / 2**30:.1f} GiB, and no more than "
                        f"{MOST_READ >> 30} are read",
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
