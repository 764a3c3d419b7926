"""Images from outside: a folder of image files, or arrays in a .npz or .safetensors file; and stored statistics.

What is read is only what was declared and checked: sizes before pixels, no pickle, no guess about grey levels, about
the range of floats, or about which axis holds the channels. docs/images.md has the rules.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddpmkit.damage import DAMAGE
from ddpmkit.distances.folder import read_folder
from ddpmkit.distances.layout import channels_first
from ddpmkit.distances.listing import SUFFIXES, image_files, silent
from ddpmkit.errors import DdpmkitError
from ddpmkit.places import MOST_READ

Array = np.ndarray[Any, np.dtype[Any]]
Levels = np.ndarray[Any, np.dtype[np.uint8]]

__all__ = [
    "KEYS",
    "SUFFIXES",
    "Statistics",
    "channels_first",
    "image_files",
    "read_folder",
    "read_images",
    "read_statistics",
    "sliver",
    "write_statistics",
]
KEYS = ("images", "samples", "levels", "arr_0", "test_images", "train_images")
SLIVER = 1 / 8  # of the scale: pixels that use less of it are said, since a wrong scale looks like that
USUAL = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # black and white of floats in other people's code
BELOW_GREY = -0.5  # pixels in [-1, 1] go below it; those in [0, 1] do not, not even where a resize rings


@dataclass(frozen=True, eq=False)
class Statistics:
    """A mean (D,) and a covariance (D, D) of features, with what the file says about them and its hash."""

    mu: Array
    cov: Array
    meta: dict[str, str] = field(default_factory=dict)
    sha256: str = ""


def read_images(
    path: Path,
    levels: int = 256,
    *,
    declared: int | None = None,
    channels: int | None = None,
    span: tuple[float, float] | None = None,
    say: Callable[[str], None] = silent,
) -> Levels:
    """Return the images at a path as uint8 grey levels 0 .. K-1, (N, C, H, W).

    Image files have 256 levels. uint8 arrays have the wanted number of levels, unless ``declared`` says otherwise.
    Floats lie in [-1, 1] where some are negative; where none is, they may as well lie in [0, 1], and ``span`` must say
    which. What has another number of levels is rounded to the nearest wanted one.

    Args:
        path: A folder of image files, all of one size and mode; or a .npz or .safetensors file with one array
            (N, H, W), (N, H, W, C) or (N, C, H, W) under one of :data:`KEYS`.
        levels: The wanted number of levels K.
        declared: The number of levels of the images at the path.
        channels: The wanted number of channels; colour images whose three channels are equal may become grey.
        span: The values of black and white in an array of floats.
        say: Told what was left out, and what looks like a wrong scale.

    Raises:
        DdpmkitError: when there is nothing, or something else, at the path; the file is named.
    """
    if not path.exists():
        raise DdpmkitError(f"there is no '{path}'", "name a folder of images, or a .npz or .safetensors file")
    if path.is_dir():
        array, native = read_folder(path, say), declared or 256
    else:
        array, native = _as_images(path, _read_arrays(path)[0], channels), declared or levels
    if channels == 1 and array.shape[1] == 3 and (array[:, :1] == array).all():
        array = array[:, :1]
    if channels is not None and array.shape[1] != channels:
        raise DdpmkitError(
            f"{path}: images of {array.shape[1]} channels, not {channels}", "both must be grey or colour"
        )
    if array.dtype.kind == "f":
        return _of_floats(path, array, levels, span, say)
    if span is not None:
        say(f"'{path}' holds whole levels, which need no range")
    return _of_levels(path, array, native, levels, say)


def read_statistics(path: Path) -> Statistics | None:
    """Return the statistics in a file: ``mu`` and ``sigma``, as pytorch-fid's .npz has them; None if it has none.

    Raises:
        DdpmkitError: when the file is damaged.
    """
    if not path.is_file() or path.suffix not in (".npz", ".safetensors"):
        return None
    arrays, meta = _read_arrays(path)
    if not {"mu", "sigma"} <= set(arrays):
        return None
    mu, cov = (np.asarray(arrays[key]) for key in ("mu", "sigma"))
    if mu.dtype.kind != "f" or cov.dtype.kind != "f":
        raise DdpmkitError(f"{path}: mu and sigma are {mu.dtype} and {cov.dtype}", "they must be floats")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Statistics(mu.astype(np.float64), cov.astype(np.float64), meta, digest)


def check_statistics_path(path: Path) -> None:
    """Refuse a place where statistics can't be written, before they are made.

    Raises:
        DdpmkitError: when the path does not end in .safetensors.
    """
    if path.suffix != ".safetensors":
        raise DdpmkitError(f"can't write statistics as '{path.suffix or path}'", "end the file in .safetensors")


def write_statistics(path: Path, mu: Array, cov: Array, meta: dict[str, Any]) -> None:
    """Write statistics as .safetensors, float64, with what they were made from.

    Raises:
        DdpmkitError: when the path does not end in .safetensors.
    """
    from ddpmkit import files

    check_statistics_path(path)
    text = {key: json.dumps(value) for key, value in meta.items()}
    files.write_bytes(path, files.pack({"mu": mu, "sigma": cov}, text))


def _read_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Every numeric array of a .npz or .safetensors file, and the metadata."""
    if path.suffix not in (".npz", ".safetensors"):
        raise DdpmkitError(f"'{path}' is neither a folder nor a .npz or .safetensors file", "name one of those")
    if not path.is_file():
        raise DdpmkitError(f"'{path}' is no file", "write the images to a file first")  # a pipe would be waited for
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MOST_READ:
                raise DdpmkitError(f"'{path}' unpacks to more than {MOST_READ >> 30} GiB", "split the file")
        with warnings.catch_warnings(), np.load(path, allow_pickle=False) as arrays:
            warnings.simplefilter("ignore")  # a damaged header may be called old-fashioned
            return {key: arrays[key] for key in arrays.files}, {}
    except (OSError, *DAMAGE) as err:
        text = " ".join(str(err).split())
        raise DdpmkitError(f"'{path}' is no readable {path.suffix} file: {text}", "write it again") from None


def _read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            meta = {key: json.loads(value) for key, value in (file.metadata() or {}).items() if _is_json(value)}
            return {key: file.get_tensor(key) for key in file.keys()}, meta  # noqa: SIM118 - not a dict
    except SafetensorError as err:
        raise ValueError(str(err)) from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _as_images(path: Path, arrays: dict[str, Array], channels: int | None) -> Array:
    found = next(_candidates(arrays), None)
    if found is None:
        held = ", ".join(f"{k} {v.shape}" for k, v in arrays.items()) or "nothing"
        raise DdpmkitError(f"'{path}' has no array of images; it holds {held}", f"name it one of {', '.join(KEYS)}")
    key, array = found
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise DdpmkitError(f"'{path}': {key} has dtype {array.dtype}", "store uint8 levels, or floats in [-1, 1]")
    # Two or four channels are taken where the other side of the comparison has them: alone, the fourth may be alpha.
    return channels_first(
        array,
        f"'{path}': {key}",
        channels={1, 3} if channels is None else {1, 3, channels},
        hint="write them as image files, whose channels are known",
    )[0]


def _candidates(arrays: dict[str, Array]) -> Iterator[tuple[str, Array]]:
    yield from ((key, arrays[key]) for key in KEYS if key in arrays)
    if len(arrays) == 1:
        yield next(iter(arrays.items()))


def sliver(least: float, most: float, low: float, high: float) -> str | None:
    """Say that pixels from ``least`` to ``most`` use only a sliver of the scale from ``low`` to ``high``."""
    if most - least >= SLIVER * (high - low):
        return None
    return f"all pixels lie in {least:.4g} .. {most:.4g}, on a scale of {low:g} .. {high:g}"


def _of_floats(
    path: Path, array: Array, levels: int, span: tuple[float, float] | None, say: Callable[[str], None]
) -> Levels:
    """Floats as grey levels; which values are black and white is asked for where it can't be seen."""
    import torch

    from ddpmkit.pixels import quantise

    if not np.isfinite(array).all():
        raise DdpmkitError(f"'{path}' holds floats that are not finite", "look at those images")
    least, most = float(array.min()), float(array.max())
    low, high = span or (-1.0, 1.0)
    slack = 1e-6 * (high - low)  # rounding of single precision
    if least < low - slack or most > high + slack:
        raise DdpmkitError(
            f"'{path}' holds floats outside [{low:g}, {high:g}], {least:.4g} to {most:.4g}",
            _range_hint(least, most),
        )
    if span is None and (least >= 0 or (least > BELOW_GREY and most > -BELOW_GREY)):
        around = " and what a resize adds around it" if least < 0 else ""
        raise DdpmkitError(
            f"'{path}' holds floats in {least:.4g} .. {most:.4g}: a part of [-1, 1], or all of [0, 1]{around}?",
            "say which values are black and white: --range 0,1 or --range=-1,1",
        )
    scale = sliver(least, most, low, high)
    if scale:
        say(f"'{path}': {scale}; is it another range?")
    pixels = array if (low, high) == (-1, 1) else 2 * (array.astype(np.float64) - low) / (high - low) - 1
    return np.asarray(quantise(torch.from_numpy(pixels.astype(np.float32)), levels).numpy())


def _range_hint(least: float, most: float) -> str:
    """What to type for floats that lie in one of the scales in use, else what to do."""
    for low, high in USUAL:
        if low <= least and most <= high:
            return f"say which values are black and white: --range={low:g},{high:g}"
    return "scale them to [-1, 1] first, or say which values are black and white: --range=BLACK,WHITE"


def _of_levels(path: Path, array: Array, native: int, levels: int, say: Callable[[str], None]) -> Levels:
    """Grey levels of ``native`` levels as those of another number."""
    import torch

    from ddpmkit.pixels import quantise, to_pixels

    least, most = int(array.min()), int(array.max())
    if most >= native:
        raise DdpmkitError(
            f"'{path}' holds the value {most}, and {native} levels end at {native - 1}",
            "say how many levels it has: --levels 256",
        )
    scale = sliver(least, most, 0, native - 1)
    if scale:
        say(f"'{path}': {scale}; has it fewer levels?")
    if native == levels:
        return array
    return np.asarray(quantise(to_pixels(torch.from_numpy(array), native), levels).numpy())
