"""Drawn images as files: one picture of all, a folder of pictures, or arrays; what a path's ending asks for."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Levels
    from ddpmkit.study.loaded import Drawn

WIDE = 480  # pixels across a picture of all images, about: small ones are enlarged by a whole number
ARRAYS = (".npz", ".safetensors")


def check_place(to: Path) -> None:
    """Refuse a path that no images can be written to; before they are drawn.

    Raises:
        DdpmkitError: for an unknown ending, or a folder that holds something.
    """
    if to.suffix not in (".png", *ARRAYS, ""):
        raise DdpmkitError(f"can't write images as '{to.suffix}'", "--to grid.png, x.npz, x.safetensors, or a folder")
    if to.suffix == "" and to.exists() and not to.is_dir():
        raise DdpmkitError(f"'{to}' is a file, and no folder for images", "--to another-name")
    if to.suffix == "" and to.is_dir() and any(to.iterdir()):
        raise DdpmkitError(f"the folder '{to}' is not empty", "--to another folder, so that no images are mixed")
    if to.suffix and to.is_dir():
        raise DdpmkitError(f"'{to}' is a folder", "--to another-name")


def write_images(drawn: Drawn, to: Path) -> None:
    """Write images as the path's ending says.

    ``.png``: all of them tiled. ``.npz``, ``.safetensors``: ``images`` (N, C, H, W) uint8 on K levels, ``n_levels`` K
    and, where there are some, ``labels``. No ending: a folder of 00000.png and so on, grey or colour, on 256 levels.

    Raises:
        DdpmkitError: as of :func:`check_place`; for images of neither one nor three channels in a folder.
    """
    from ddpmkit import files

    check_place(to)
    if to.suffix in ARRAYS:
        import numpy as np

        arrays: dict[str, Any] = {"images": drawn.images, "n_levels": np.asarray(drawn.levels)}
        if drawn.labels is not None:
            arrays["labels"] = drawn.labels
        if to.suffix == ".safetensors":
            files.write_bytes(to, files.pack(arrays))
            return
        files.write_bytes(to, files.pack_npz(arrays))
    elif to.suffix == ".png":
        files.write_bytes(to, _grid(drawn.images, drawn.levels))
    else:
        width = max(5, len(str(len(drawn.images) - 1)))
        pictures = _singly(drawn)
        for i, picture in enumerate(pictures):
            of_class = "" if drawn.labels is None else f"-class{drawn.labels[i]}"
            files.write_bytes(to / f"{i:0{width}d}{of_class}.png", picture)


def _grid(images: Levels, levels: int) -> bytes:
    from ddpmkit.report.draw.tiles import tile

    pixels = tile(images, levels, math.ceil(math.sqrt(len(images))))
    return _png(pixels, max(1, round(WIDE / pixels.shape[1])))


def _singly(drawn: Drawn) -> list[bytes]:
    import numpy as np

    channels = drawn.images.shape[1]
    if channels not in (1, 3):
        raise DdpmkitError(f"images of {channels} channels are neither grey nor colour", "--to x.npz, or grid.png")
    scaled = np.round(drawn.images.astype(np.float64) * 255 / (drawn.levels - 1)).astype(np.uint8)
    return [_png(image[0] if channels == 1 else image.transpose(1, 2, 0)) for image in scaled]


def _png(pixels: Any, scale: int = 1) -> bytes:
    import numpy as np
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
