"""Rows of pictures, one below the other, under common heads: what a walk through a chain looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Levels


@dataclass(frozen=True)
class Strips:
    """Labelled rows of pictures.

    Attributes:
        rows: label -> grey levels (N, C, H, W), one picture a head.
        heads: what stands above each of the N columns.
        levels: K, the number of grey levels.
    """

    rows: dict[str, Levels]
    heads: tuple[str, ...]
    levels: int
