"""What a caller hands to the likelihood, looked at before a network runs: counts, images, numbers."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from torch import Tensor

from ddpmkit.diffusion.tables_for import Array
from ddpmkit.errors import DdpmkitError


def whole(name: str, value: Any, least: int, hint: str) -> None:
    """Refuse what is no whole number, or one that is too small.

    Raises:
        DdpmkitError: with the hint.
    """
    try:
        found = operator.index(value)
    except TypeError:
        raise DdpmkitError(f"{name} must be a whole number, got {value!r}", hint) from None
    if found < least:
        raise DdpmkitError(f"{name} must be at least {least}, got {found}", hint)


def numbers(name: str, values: Any, hint: str) -> Array:
    """Return what a caller gave as numbers, float64.

    Raises:
        DdpmkitError: for text, and whatever else is no number.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DdpmkitError(f"{name} must be numbers, got {values!r:.60}", hint) from None


def images(name: str, x: Tensor, like: Tensor | None = None) -> None:
    """Refuse a set of images that is empty or none, or is of another shape than those of ``like``.

    Raises:
        DdpmkitError: with the shape.
    """
    shape = tuple(x.shape) if isinstance(x, Tensor) else None
    if shape is None or len(shape) < 2:
        said = f"a {type(x).__name__}" if shape is None else f"shape {shape}"
        raise DdpmkitError(f"{name} must be a tensor (N, ...) of images, got {said}", "one image: x[None]")
    if len(x) == 0:
        raise DdpmkitError(f"{name} has no images", "give at least one")
    if like is not None and shape[1:] != tuple(like.shape[1:]):
        raise DdpmkitError(f"{name} has images of shape {shape[1:]}, the others {tuple(like.shape[1:])}", "one shape")
