"""A figure with what it is called on disk, on the page, and to who can't see it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmkit.report.draw.palette import VARIABLES
from ddpmkit.report.draw.save import PAGE, encode, save
from ddpmkit.text import inert

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Chart:
    """A figure of a report.

    Attributes:
        stem: its file's name without an ending.
        section: the section of the page that it belongs to.
        title: what stands over it there.
        alt: what it shows, for who can't see it.
        figure: the drawing.
    """

    stem: str
    section: str
    title: str
    alt: str
    figure: Figure

    def inline(self) -> str:
        """The chart as an SVG element whose colours are the page's."""
        svg = self._svg.decode()
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
        svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every figure, and nothing refers to them
        svg = re.sub(r"<svg ([^>]*?)>", self._opening, svg, count=1)
        for colour, variable in VARIABLES.items():
            svg = svg.replace(colour, variable)
        return svg

    def write(self, folder: Path, forms: Sequence[str] = PAGE) -> list[Path]:
        """Write the chart's files, and return their paths."""
        drawn = {"svg": self._svg} if "svg" in forms else {}
        return save(self.figure, folder / self.stem, forms, encoded=drawn)

    @cached_property
    def _svg(self) -> bytes:
        # Drawn once: the file and the page show the same.
        return encode(self.figure, "svg", self.stem)

    def _opening(self, tag: re.Match[str]) -> str:
        box = re.search(r'viewBox="([\d. ]+)"', tag[1])
        width = float(box[1].split()[2]) if box else 300.0
        label = inert(self.alt).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
        size = f'style="width:{width * 1.45:.0f}px" viewBox="{box[1] if box else ""}"'
        return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{label}" {size}>'
