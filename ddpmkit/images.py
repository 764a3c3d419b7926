"""Images from outside: a folder of image files, or arrays in a .npz or .safetensors file; and stored statistics.

What is read is only what was declared and checked: sizes before pixels, no pickle, no guess about grey levels.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddpmkit.errors import DAMAGE, DdpmkitError

Array = np.ndarray[Any, np.dtype[Any]]
Levels = np.ndarray[Any, np.dtype[np.uint8]]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
MOST_PIXELS = 2**26  # of one image; a small file can declare more than memory holds
LIMIT = 8 * 2**30  # bytes, of everything that is read
KEYS = ("images", "samples", "levels", "arr_0", "test_images", "train_images")


@dataclass(frozen=True, eq=False)
class Statistics:
    """A mean (D,) and a covariance (D, D) of features, with what the file says about them and its hash."""

    mu: Array
    cov: Array
    meta: dict[str, str] = field(default_factory=dict)
    sha256: str = ""


def read_images(path: Path, levels: int = 256, *, declared: int | None = None, channels: int | None = None) -> Levels:
    """Return the images at a path as uint8 grey levels 0 .. K-1, (N, C, H, W).

    Image files have 256 levels. uint8 arrays have the wanted number of levels, unless ``declared`` says otherwise;
    float arrays hold pixels in [-1, 1]. What has another number of levels is rounded to the nearest wanted one.

    Args:
        path: A folder of image files, all of one size and mode; or a .npz or .safetensors file with one array
            (N, H, W), (N, H, W, C) or (N, C, H, W) under one of :data:`KEYS`.
        levels: The wanted number of levels K.
        declared: The number of levels of the images at the path.
        channels: The wanted number of channels; colour images whose three channels are equal may become grey.

    Raises:
        DdpmkitError: when there is nothing, or something else, at the path; the file is named.
    """
    if not path.exists():
        raise DdpmkitError(f"there is no '{path}'", "name a folder of images, or a .npz or .safetensors file")
    if path.is_dir():
        array, native = _read_folder(path), declared or 256
    else:
        array, native = _as_images(path, _read_arrays(path)[0]), declared or levels
    if channels == 1 and array.shape[1] == 3 and (array[:, :1] == array).all():
        array = array[:, :1]
    if channels is not None and array.shape[1] != channels:
        raise DdpmkitError(
            f"{path}: images of {array.shape[1]} channels, not {channels}", "both must be grey or colour"
        )
    return _to_levels(path, array, native, levels)


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


def write_statistics(path: Path, mu: Array, cov: Array, meta: dict[str, Any]) -> None:
    """Write statistics as .safetensors, float64, with what they were made from.

    Raises:
        DdpmkitError: when the path does not end in .safetensors.
    """
    from safetensors.numpy import save

    from ddpmkit import files

    if path.suffix != ".safetensors":
        raise DdpmkitError(f"can't write statistics as '{path.suffix or path}'", "end the file in .safetensors")
    text = {key: json.dumps(value) for key, value in meta.items()}
    files.write_bytes(path, save({"mu": np.ascontiguousarray(mu), "sigma": np.ascontiguousarray(cov)}, text))


def _read_folder(folder: Path) -> Array:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise DdpmkitError(f"there are no images in '{folder}'", f"images end in {', '.join(SUFFIXES[:4])} ..")
    images: list[Array] = []
    for path in paths:
        image = _read_file(path, images[0].shape if images else None, len(paths))
        if images and image.shape != images[0].shape:
            raise DdpmkitError(
                f"'{path}' is {_said(image.shape)} and '{paths[0]}' is {_said(images[0].shape)}",
                "all images must have one size and be all grey or all colour",
            )
        images.append(image)
    return np.stack(images)


def _read_file(path: Path, shape: tuple[int, ...] | None, count: int) -> Array:
    """One image file as uint8 (C, H, W); its declared size is looked at before its pixels."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; the size is checked below
            with Image.open(path) as image:
                width, height = image.size
                if width * height > MOST_PIXELS or width * height * 3 * count > LIMIT:
                    raise DdpmkitError(f"'{path}' declares {width} x {height} pixels", "scale the images down first")
                if shape is not None and (height, width) != shape[1:]:
                    raise DdpmkitError(
                        f"'{path}' is {width} x {height} and the images before it are {shape[2]} x {shape[1]}",
                        "all images must have one size",
                    )
                if image.mode in ("1", "P"):
                    image.load()
                    converted = image.convert("L" if image.mode == "1" else "RGB")
                elif image.mode in ("L", "RGB"):
                    converted = image
                else:
                    raise DdpmkitError(
                        f"'{path}' has the mode {image.mode}", "use 8-bit grey or RGB without transparency"
                    )
                pixels = np.asarray(converted, dtype=np.uint8)
    except Image.DecompressionBombError:
        raise DdpmkitError(f"'{path}' declares far too many pixels", "scale the images down first") from None
    except UnidentifiedImageError:
        raise DdpmkitError(f"'{path}' is no image", "take it out of the folder") from None
    except (OSError, *DAMAGE) as err:
        raise DdpmkitError(f"'{path}' can't be read: {' '.join(str(err).split())}", "write it again") from None
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _read_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Every numeric array of a .npz or .safetensors file, and the metadata."""
    if path.suffix not in (".npz", ".safetensors"):
        raise DdpmkitError(f"'{path}' is neither a folder nor a .npz or .safetensors file", "name one of those")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > LIMIT:
                raise DdpmkitError(f"'{path}' unpacks to more than {LIMIT >> 30} GiB", "split the file")
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


def _as_images(path: Path, arrays: dict[str, Array]) -> Array:
    found = next(_candidates(arrays), None)
    if found is None:
        held = ", ".join(f"{k} {v.shape}" for k, v in arrays.items()) or "nothing"
        raise DdpmkitError(f"'{path}' has no array of images; it holds {held}", f"name it one of {', '.join(KEYS)}")
    key, array = found
    shape = array.shape
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise DdpmkitError(f"'{path}': {key} has dtype {array.dtype}", "store uint8 levels, or floats in [-1, 1]")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4 or shape[1] not in (1, 3) or (shape[3] in (1, 3) and shape[1] != shape[3]):
        raise DdpmkitError(
            f"'{path}': {key} has shape {shape}", "images are (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W)"
        )
    if array.size == 0:
        raise DdpmkitError(f"'{path}': {key} is empty, {shape}", "write it again")
    return np.ascontiguousarray(array)


def _candidates(arrays: dict[str, Array]) -> Iterator[tuple[str, Array]]:
    yield from ((key, arrays[key]) for key in KEYS if key in arrays)
    if len(arrays) == 1:
        yield next(iter(arrays.items()))


def _to_levels(path: Path, array: Array, native: int, levels: int) -> Levels:
    import torch

    from ddpmkit.pixels import quantise, to_pixels

    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and np.abs(array).max() <= 1):
            raise DdpmkitError(f"'{path}' holds floats outside [-1, 1]", "scale the pixels to [-1, 1]")
        return np.asarray(quantise(torch.from_numpy(array.astype(np.float32)), levels).numpy())
    if int(array.max()) >= native:
        raise DdpmkitError(
            f"'{path}' holds the value {array.max()}, and {native} levels end at {native - 1}",
            "say how many levels it has: --levels 256",
        )
    if native == levels:
        return array
    return np.asarray(quantise(to_pixels(torch.from_numpy(array), native), levels).numpy())


def _said(shape: tuple[int, ...]) -> str:
    return f"{shape[2]} x {shape[1]} {'grey' if shape[0] == 1 else 'colour'}"
