"""Where figures become files, and nowhere else: PNG, SVG and PDF, and the same bytes each time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.report.draw.palette import PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What would name a time, a machine or a version, and make other bytes of the same study.
SILENT: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(SILENT)
PAGE = (
    "png",
    "svg",
)  # a PDF costs as much as both, for the letters that it embeds: it is written where it is asked for


def encode(figure: Figure, form: str, name: str) -> bytes:
    """Return a figure as PNG, SVG or PDF; the name salts the ids of an SVG, since several may share one page.

    Text stays text: letters in an SVG, embedded TrueType in a PDF. A PNG has a white ground, the others that of their
    page.
    """
    from matplotlib import rc_context

    rules: Any = {"svg.hashsalt": f"ddpmkit {name}", "svg.fonttype": "none", "pdf.fonttype": 42}
    ground: dict[str, Any] = {"facecolor": PAPER} if form == "png" else {"transparent": True}
    buffer = io.BytesIO()
    with rc_context(rules), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks becomes a box
        figure.savefig(buffer, format=form, metadata=SILENT[form], bbox_inches="tight", pad_inches=0.05, **ground)
    return buffer.getvalue()


def save(
    figure: Figure, stem: Path, forms: Sequence[str] = PAGE, *, encoded: Mapping[str, bytes] | None = None
) -> list[Path]:
    """Write a figure once a form, as ``stem.png`` and so on, and return the paths.

    Args:
        figure: The figure.
        stem: Folder and name, without an ending.
        forms: Some of png, svg, pdf.
        encoded: Form -> the figure in that form, where it has been drawn before.
    """
    drawn = encoded or {}
    out = []
    for form in forms:
        path = stem.with_name(f"{stem.name}.{form}")  # a name may hold a dot
        files.write_bytes(path, drawn[form] if form in drawn else encode(figure, form, stem.name))
        out.append(path)
    return out


def save_as(figure: Figure, path: Path) -> None:
    """Write a figure in the form that the ending of its file says.

    Raises:
        DdpmkitError: for any other ending.
    """
    form = path.suffix.removeprefix(".")
    if form not in FORMATS:
        endings = [f".{f}" for f in FORMATS]
        hint = f"end the file in {', '.join(endings[:-1])} or {endings[-1]}"
        raise DdpmkitError(f"can't write a figure as '{path.suffix or path}'", hint)
    files.write_bytes(path, encode(figure, form, path.stem))
