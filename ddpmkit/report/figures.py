"""Pictures: the samples of every cell, the cells side by side from the same noise, the metrics seed by seed."""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from ddpmkit import files
from ddpmkit.report.colour import as_rgb
from ddpmkit.report.frames import Records
from ddpmkit.report.metrics import direction, in_words
from ddpmkit.report.tables import Summary
from ddpmkit.report.views import out_of
from ddpmkit.study.records import SampleRecord
from ddpmkit.study.store import Store
from ddpmkit.text import inert

GRID = 10  # samples across and down in a cell's own picture
STRIP = 16  # samples of each cell in the side-by-side picture
COLOURS = ("#4C72B0", "#DD8452", "#55A868", "#C44E52", "#8172B3", "#937860", "#DA8BC3", "#8C8C8C")

Levels = np.ndarray[Any, np.dtype[np.uint8]]


def samples_of(records: Records, cell: str) -> tuple[Levels, int] | None:
    """Return the samples (N, C, H, W) of a cell's first finished result, and K; None when it has none."""
    for r in records.plan["results"]:
        store = Store(out_of(records, r))
        if r["cell"] == cell and r["sample"] and (drawn := store.record(SampleRecord, r["sample"])):
            blob = (store.folder("sample", r["sample"]) / "out" / "samples.safetensors").read_bytes()
            return load(blob)["levels"], drawn.levels
    return None


def drawn_from(records: Records) -> list[tuple[str, str, Levels, int, tuple[int, int], bool]]:
    """Return label, slug, samples, K, seeds of every cell, and whether the seeds are those that most cells share.

    The same train and sample seed give every cell the same noise, so cells are shown at the seeds that most have.
    """
    done: dict[str, dict[tuple[int, int], tuple[Store, str, int]]] = {}
    for r in records.plan["results"]:
        store = Store(out_of(records, r))
        if r["sample"] and (drawn := store.record(SampleRecord, r["sample"])):
            done.setdefault(r["cell"], {})[r["train_seed"], r["sample_seed"]] = (store, r["sample"], drawn.levels)
    votes = Counter(seeds for found in done.values() for seeds in found)
    common = max(votes, key=lambda s: votes[s]) if votes else None
    out = []
    for cell in records.plan["cells"]:
        found = done.get(cell["label"])
        if not found:
            continue
        seeds = common if common in found else next(iter(found))
        store, id, levels = found[seeds]
        with isolated(f"the samples of {cell['label']}"):
            blob = (store.folder("sample", id) / "out" / "samples.safetensors").read_bytes()
            out.append((cell["label"], cell["slug"], load(blob)["levels"], levels, seeds, seeds == common))
    return out


def tile(images: Levels, levels: int, across: int, gap: int = 1) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Lay images out on a white ground, ``across`` in a row: (N, C, H, W) levels -> (H', W', 3) uint8."""
    shown = as_rgb(images, levels)
    n, h, w, _ = shown.shape
    down = -(-n // across)
    canvas = np.full((down * (h + gap) - gap, across * (w + gap) - gap, 3), 255, np.uint8)
    for i, image in enumerate(shown):
        y, x = (i // across) * (h + gap), (i % across) * (w + gap)
        canvas[y : y + h, x : x + w] = image
    return canvas


def write_figures(records: Records, summary: Summary) -> list[Path]:
    """Write all figures of a study below its ``figures/`` and return their paths."""
    folder = records.folder / "figures"
    written: list[Path] = []
    strips = []
    for cell in records.plan["cells"]:
        with isolated(f"the samples of {cell['label']}"):
            found = samples_of(records, cell["label"])
            if found is None:
                continue
            images, levels = found
            path = folder / f"samples-{cell['slug']}.png"
            _write_png(path, tile(images[: GRID * GRID], levels, GRID), 480)
            written.append(path)
            strips.append((cell["label"], tile(images[: 2 * STRIP], levels, STRIP)))
    if strips:
        with isolated("the cells side by side"):
            written += _save(_side_by_side(strips), folder / "samples")
    if any(summary.intervals.values()):
        with isolated("the metrics"):
            written += _save(_metrics(summary), folder / "metrics")
    return written


@contextmanager
def isolated(what: str) -> Iterator[None]:
    """Say what could not be drawn, and go on: a picture costs no results, and no other picture."""
    try:
        yield
    except Exception as err:  # a drawing library raises what it likes, and samples may be damaged
        print(f"warning: {what} could not be drawn: {type(err).__name__}: {err}", file=sys.stderr)


def _write_png(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]], width: int) -> None:
    from PIL import Image

    scale = max(1, round(width / pixels.shape[1]))
    image = Image.fromarray(pixels).resize((pixels.shape[1] * scale, pixels.shape[0] * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    files.write_bytes(path, buffer.getvalue())


def _side_by_side(strips: list[tuple[str, Any]]) -> Any:
    """The same noise down every column, one cell a row."""
    from matplotlib.figure import Figure

    height, width = strips[0][1].shape[:2]
    figure = Figure(figsize=(8, len(strips) * (7.8 * height / width + 0.3) + 0.1), dpi=200)
    axes = figure.subplots(len(strips), 1, squeeze=False)[:, 0]
    for axis, (label, pixels) in zip(axes, strips, strict=True):
        axis.imshow(pixels, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
        axis.set_title(_plain(label), loc="left", fontsize=8.5, pad=3)
    axes[0].set_title("first samples, the same noise in each column", loc="right", fontsize=7.5, color="#666666", pad=3)
    figure.tight_layout(pad=0.4, h_pad=0.5)
    return figure


def _metrics(s: Summary) -> Any:
    """One panel a metric: a dot a train seed, the mean and its interval; grey lines are what to hold them against."""
    from matplotlib.figure import Figure

    shown = [m for m in s.metrics if s.intervals[m]]
    figure = Figure(figsize=(3.1 * len(shown) + 0.9, 0.42 * len(s.cells) + 1.35), dpi=200)
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    top = 0.95
    places = {cell: -i for i, cell in enumerate(s.cells)}
    for axis, metric in zip(axes, shown, strict=True):
        for cell, interval in s.intervals[metric].items():
            colour = COLOURS[s.cells.index(cell)] if len(s.cells) <= len(COLOURS) else COLOURS[0]
            y = places[cell]
            seeds = list(s.values[metric][cell].values())
            if interval.low is not None and interval.high is not None:
                axis.plot([interval.low, interval.high], [y, y], color=colour, lw=2, alpha=0.5, solid_capstyle="butt")
            axis.plot(seeds, [y + 0.16] * len(seeds), "o", ms=3.5, color=colour, alpha=0.55, mew=0)
            axis.plot([interval.mean], [y], "D", ms=4, color=colour)
        low, high = axis.get_xlim()
        shelf = 0
        for name, values in s.references.items():
            if metric in values and abs(values[metric] - (low + high) / 2) < 1.6 * (high - low):
                axis.axvline(values[metric], color="#888888", lw=1, ls=":")
                axis.annotate(
                    _plain(name),
                    (values[metric], 0.62 + 0.24 * shelf),
                    (3, 0),
                    textcoords="offset points",
                    fontsize=6.5,
                    color="#666666",
                    ha="left",
                    va="bottom",
                )
                shelf += 1
        unit = " bits/dim" if s.originals.get(metric, metric) == "NLL" else ""
        axis.set_xlabel(_plain(metric) + unit + in_words(s.directions.get(metric, direction(metric))), fontsize=8)
        axis.tick_params(labelsize=7.5)
        top = max(top, 0.71 + 0.24 * shelf)
        axis.grid(axis="x", color="#dddddd", lw=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_ylim(-len(s.cells) + 0.45, top)
    axes[0].set_yticks(list(places.values()), [_plain(c) for c in places], fontsize=8.5)
    figure.tight_layout(pad=0.5, w_pad=1.2)
    figure.text(
        0.005,
        -0.02,
        "dots: train seeds; diamond: mean; bar: 95 % Student-t interval",
        fontsize=6.5,
        color="#666666",
        va="top",
    )
    return figure


def _save(figure: Any, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG, without the time or the machine in them."""
    from matplotlib import rc_context

    out = []
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        with rc_context({"svg.hashsalt": "ddpmkit"}):
            figure.savefig(buffer, format=ending, metadata=metadata, bbox_inches="tight", pad_inches=0.06)
        path = stem.with_suffix("." + ending)
        files.write_bytes(path, buffer.getvalue())
        out.append(path)
    return out


def _plain(text: str) -> str:
    """A label without what matplotlib would read as mathematics."""
    return inert(text).replace("$", r"\$")
