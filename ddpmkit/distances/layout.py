"""Which axis of an array of images holds the channels: decided in one place, and never guessed where two would do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ddpmkit.errors import DdpmkitError

Array = np.ndarray[Any, np.dtype[Any]]

# layout -> the order in words, and which axes of the array are C, H and W
LAYOUTS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "nchw": ("(N, C, H, W)", (1, 2, 3)),
    "nhwc": ("(N, H, W, C)", (3, 1, 2)),
}


def channels_first(
    array: Array, name: str, *, channels: Collection[int], hint: str, layout: str = "auto", square: bool = False
) -> tuple[Array, str]:
    """Return images as (N, C, H, W), C-contiguous, and the order in which they were read, ``(N, H, W, C)`` and so on.

    Three axes are grey images (N, H, W). Four are read in the one order that gives an allowed number of channels; where
    both do, ``square`` takes the one with H = W, and where that settles nothing, as for (N, 3, 3, 3), the array is
    refused.

    Args:
        array: Images of any dtype.
        name: What to call the array in an error.
        channels: Allowed numbers of channels.
        hint: How to say which order it is, where both are possible.
        layout: ``nchw`` or ``nhwc`` where it has been said, else ``auto``.
        square: Whether images that are as high as wide are the likelier ones.

    Raises:
        DdpmkitError: for an array that is empty, or has no reading, or two.
    """
    shape = array.shape
    readings = _readings(shape, channels, layout, square)
    if not readings or 0 in shape:
        numbers = ", ".join(str(c) for c in sorted(channels))
        raise DdpmkitError(
            f"{name} has shape {shape}{', it is empty' if 0 in shape else ''}",
            f"images are (N, H, W), (N, H, W, C) or (N, C, H, W), with C one of {numbers}",
        )
    if len(readings) > 1 and shape[1:] != (1, 1, 1):  # there both are the same
        both = " or as ".join(f"{order}, {c} channels of {h} x {w}" for order, (c, h, w) in readings.items())
        raise DdpmkitError(f"{name} of shape {shape} can be read as {both}", hint)
    order = next(iter(readings))
    if array.ndim == 3:
        array = array[:, None]
    elif order == LAYOUTS["nhwc"][0]:
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array), order


def _readings(
    shape: tuple[int, ...], channels: Collection[int], layout: str, square: bool
) -> dict[str, tuple[int, int, int]]:
    """The orders in which an array may be read, each with its (C, H, W)."""
    readings: dict[str, tuple[int, int, int]] = {}
    if len(shape) == 3:
        readings = {"(N, H, W)": (1, shape[1], shape[2])}
    elif len(shape) == 4:
        orders = LAYOUTS if layout == "auto" else {layout: LAYOUTS[layout]}
        readings = {order: (shape[c], shape[h], shape[w]) for order, (c, h, w) in orders.values()}
    allowed = {order: (c, h, w) for order, (c, h, w) in readings.items() if c in channels}
    likely = {order: (c, h, w) for order, (c, h, w) in allowed.items() if square and h == w}
    return likely or allowed
