"""Pictures in a terminal, out of block characters: rows of images, and a curve on one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit.report.draw.tiles import as_rgb

if TYPE_CHECKING:
    from rich.text import Text

    from ddpmkit.study.strips import Strips


HALF = "▀"  # the upper half of a character: two pixels, one in its colour and one in that of the ground


def terminal_strips(strips: Strips, width: int, *, colour: bool = True) -> Text:
    """Draw labelled rows of pictures as half blocks, two pixels a character; as many columns as fit, the ends included.

    Large images are thinned to 16 pixels: this is for a quick look. Without colour, shades stand for brightness. Labels
    that leave the pictures no room stand on lines of their own.
    """
    from rich.cells import cell_len
    from rich.style import Style
    from rich.text import Text

    heads = strips.heads
    pictures = [as_rgb(images, strips.levels) for images in strips.rows.values()]
    size = max(pictures[0].shape[1:3])
    thin = slice(None, None, max(1, -(-size // 16)))
    across = len(range(pictures[0].shape[2])[thin])
    longest = max(cell_len(label) for label in strips.rows)
    above = longest > 24 or longest + 2 + 2 * (across + 1) > width
    margin = 2 if above else longest + 2
    count = max(2, min(len(heads), (width - margin) // (across + 1)))
    shown = np.linspace(0, len(heads) - 1, count).round().astype(int)
    out = Text(" " * margin + " ".join(heads[i][:across].ljust(across) for i in shown) + "\n", style="dim")
    for label, drawn in zip(strips.rows, pictures, strict=True):
        pixels = drawn[shown][:, thin, thin].transpose(0, 3, 1, 2).astype(int)
        if above:
            out.append(label + "\n")
        for y in range(0, pixels.shape[2], 2):
            out.append(label + " " * (margin - cell_len(label)) if y == 0 and not above else " " * margin)
            for image in pixels:
                below = image[:, min(y + 1, image.shape[1] - 1)]
                for x in range(image.shape[2]):
                    if not colour:
                        bright = float(image[:, y, x].mean() + below[:, x].mean()) / 510
                        out.append(" ░▒▓█"[round(4 * bright)])
                        continue
                    upper, lower = ("#{:02x}{:02x}{:02x}".format(*c) for c in (image[:, y, x], below[:, x]))
                    out.append(HALF, Style(color=upper, bgcolor=lower))
                out.append(" ")
            out.append("\n")
    return out


def sparkline(values: np.ndarray[Any, Any], width: int = 32) -> str:
    """Draw values in [0, 1] as one line of block characters."""
    blocks = " ▁▂▃▄▅▆▇█"
    index = np.linspace(0, len(values) - 1, width).round().astype(int)
    return "".join(blocks[round(float(np.clip(v, 0, 1)) * (len(blocks) - 1))] for v in values[index])
