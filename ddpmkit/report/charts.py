"""Small charts, one idea each: effects, seeds in pairs, two axes, training, bits by step, schedules.

Each is a narrow figure of its own, so that a page can set them side by side or below one another. They are drawn in a
few named colours; inside a page these become CSS variables, so that the same drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit import files
from ddpmkit.report.frames import Records
from ddpmkit.report.tables import Summary, main_table
from ddpmkit.report.views import out_of, varying
from ddpmkit.study.records import NllRecord, TrainRecord
from ddpmkit.study.store import Store
from ddpmkit.text import inert

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; the page has its own shades of them for the dark.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b88700", "#56b4e9", "#6a4fa3", "#7f7f7f")
INK, MUTED, RULE = "#1c2024", "#667079", "#dfe3e7"
BETTER, WORSE = SERIES[0], SERIES[1]
VARIABLES = {c: f"var(--s{i})" for i, c in enumerate(SERIES)} | {
    INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"
}  # fmt: skip
WIDTH = 4.3  # inches; a column of the page
MANY = 24  # cells that still have room in a chart with a place for each


@dataclass(frozen=True)
class Chart:
    """A figure with what it is called on disk, on the page and to who can't see it."""

    stem: str
    section: str
    title: str
    alt: str
    figure: Figure

    def files(self) -> dict[str, bytes]:
        """The chart as SVG and PNG, without the time or the machine in them."""
        return {f"{self.stem}.svg": self._svg, f"{self.stem}.png": _bytes(self.figure, "png", self.stem)}

    def inline(self) -> str:
        """The chart as an SVG element whose colours are the page's."""
        svg = self._svg.decode()
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
        svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every figure, and nothing refers to them
        svg = re.sub(r"<svg ([^>]*?)>", self._opening, svg, count=1)
        for colour, variable in VARIABLES.items():
            svg = svg.replace(colour, variable)
        return svg

    @cached_property
    def _svg(self) -> bytes:
        # Drawn once: the file and the page show the same.
        return _bytes(self.figure, "svg", self.stem)

    def _opening(self, found: re.Match[str]) -> str:
        box = re.search(r'viewBox="([\d. ]+)"', found[1])
        width = float(box[1].split()[2]) if box else 300.0
        label = inert(self.alt).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
        size = f'style="width:{width * 1.45:.0f}px" viewBox="{box[1] if box else ""}"'
        return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{label}" {size}>'


def charts(records: Records, summary: Summary) -> Iterator[Chart]:
    """Draw all that the records have the numbers for."""
    heads = dict(zip(summary.metrics, main_table(summary).columns[2:], strict=False))
    for number, metric in enumerate(summary.metrics):
        title, stem = heads.get(metric, metric), _stem(metric, number)
        gaps = {c: d for c, d in summary.differences[metric].items() if d.n and d.difference == d.difference}
        if gaps:
            alt = f"Differences from {summary.baseline} in {metric}, with intervals; the same numbers are in the table."
            label = f"difference from {short(summary.baseline, 28)}"
            yield Chart(
                f"effects-{stem}", "effects", title, alt, _forest(gaps, title, label, summary.margins.get(metric))
            )
        axes = {f"{e.axis}: {e.level} - {e.reference}": e.contrast for e in summary.effects.get(metric, ())}
        whole = {name: c for name, c in axes.items() if c.n and c.difference == c.difference}
        if whole:
            figure = _forest(whole, title, "difference over matched cells", summary.margins.get(metric))
            alt = f"Effects of whole axes on {metric}, with intervals; the same numbers are in the table."
            yield Chart(f"axes-{stem}", "effects", f"{title}, whole axes", alt, figure)
        values = {c: v for c, v in summary.values.get(metric, {}).items() if v}
        if 1 < len(values) <= MANY and max(map(len, values.values())) > 1:
            alt = f"{metric} of each cell, one line a train seed."
            yield Chart(f"seeds-{stem}", "seeds", title, alt, _slopes(values))
    axis_names = list(varying(records))
    if "cell" not in axis_names and len(axis_names) >= 2:
        for number, metric in enumerate(summary.metrics):
            for part, (said, grid) in enumerate(_grids(records, summary, metric, axis_names)):
                stem = f"grid-{_stem(metric, number)}" + (f"-{part + 1}" if said else "")
                alt = f"Mean {metric} by {axis_names[0]} and {axis_names[1]}{said}."
                title = heads.get(metric, metric) + said
                yield Chart(stem, "grid", title, alt, _heat(grid, axis_names[0], axis_names[1]))
    yield from _curves(records)


def write_charts(folder: Path, drawn: Iterable[Chart]) -> list[Path]:
    """Write charts as SVG and PNG into a folder, and return the paths."""
    out = []
    for chart in drawn:
        for name, data in chart.files().items():
            files.write_bytes(folder / name, data)
            out.append(folder / name)
    return out


def plain(text: str) -> str:
    """A label without what matplotlib would read as mathematics."""
    return inert(text).replace("$", r"\$")


def short(text: str, limit: int = 34) -> str:
    """A label that leaves room for the drawing."""
    text = inert(text)
    return plain(text if len(text) <= limit else text[: limit - 1] + "…")


def _stem(metric: str, number: int) -> str:
    """A file name for a metric; a number keeps those apart that would slug alike."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", metric).strip("-")[:40]
    return slug if slug and re.fullmatch(r"[A-Za-z0-9-]+", metric) else f"{slug or 'metric'}-{number + 1}"


def _forest(gaps: dict[str, Any], title: str, label: str, margin: float | None) -> Figure:
    figure, axis = _panel(0.75 + 0.4 * len(gaps))
    # Zero is marked at each line alone, so that it crosses no name.
    axis.vlines(
        [0.0] * len(gaps), [-i - 0.2 for i in range(len(gaps))], [0.14 - i for i in range(len(gaps))], INK, lw=1
    )
    for row, c in enumerate(gaps.values()):
        colour = {"better": BETTER, "worse": WORSE}.get(c.verdict, MUTED)
        if c.low is not None and c.high is not None:
            axis.plot([c.low, c.high], [-row, -row], color=colour, lw=2, solid_capstyle="round")
        settled = c.verdict in ("better", "worse")
        axis.plot([c.difference], [-row], "o", ms=5.5, color=colour, mfc=colour if settled else "none", mew=1.4)
    # One wild interval must not flatten all others: the scale follows the points and the typical interval.
    ends = [e for c in gaps.values() for e in (c.low, c.high) if e is not None]
    if ends:
        halves = sorted((c.high - c.low) / 2 for c in gaps.values() if c.low is not None and c.high is not None)
        reach = 1.15 * max(abs(c.difference) for c in gaps.values()) + 2.5 * halves[len(halves) // 2]
        low, high = max(min([*ends, 0.0]), -reach), min(max([*ends, 0.0]), reach)
        if high > low:
            left, right = low - 0.06 * (high - low), high + 0.06 * (high - low)
            axis.set_xlim(left, right)
            for row, c in enumerate(gaps.values()):  # an arrow where a line goes on beyond the frame
                at = [(x, m) for x, m, out in ((left, "<", c.low), (right, ">", c.high)) if out is not None
                      and (out < left if m == "<" else out > right)]  # fmt: skip
                for x, mark in at:
                    axis.plot([x], [-row], mark, ms=5, color=MUTED, clip_on=False)
    # A cell's name stands above its line, not beside it: a long one takes no room from the drawing.
    for row, cell in enumerate(gaps):
        where = axis.get_yaxis_transform()
        axis.text(0, 0.3 - row, short(cell, 60), transform=where, color=INK, fontsize=8, va="center")
    axis.set_ylim(-len(gaps) + 0.6, 0.62)
    axis.set_yticks([])
    side = "; left is better" if "↓" in title else "; right is better" if "↑" in title else ""
    axis.set_xlabel(label + side)
    if margin is not None:  # inside the band a gap does not matter
        axis.axvspan(-margin, margin, color=RULE, lw=0, alpha=0.6, zorder=0)
    return _finish(figure, axis, "x")


def _slopes(values: dict[str, dict[int, float]]) -> Figure:
    cells = list(values)
    figure, axis = _panel(2.7, max(WIDTH, 1.4 + 0.42 * len(cells)))
    seeds = sorted({s for v in values.values() for s in v})
    for i, seed in enumerate(seeds):
        line = [values[c].get(seed, np.nan) for c in cells]
        colour = SERIES[i] if len(seeds) <= len(SERIES) else MUTED
        axis.plot(range(len(cells)), line, "-o", color=colour, ms=4, lw=1.3, alpha=0.9, label=f"seed {seed}")
    axis.set_xlim(-0.35, len(cells) - 0.65)
    steep = len(cells) > 4 or max(map(len, cells)) > 14
    axis.set_xticks(
        range(len(cells)),
        [short(c, 24) for c in cells],
        rotation=32 if steep else 0,
        ha="right" if steep else "center",
        rotation_mode="anchor" if steep else "default",
    )
    if len(seeds) <= len(SERIES):
        _legend(axis)
    return _finish(figure, axis, "y")


def _grids(
    records: Records, s: Summary, metric: str, axes: Sequence[str]
) -> list[tuple[str, dict[str, dict[str, float]]]]:
    """The means by the first two axes, a grid for each point of the others; at most six grids."""
    from ddpmkit.report.views import text

    out: dict[str, dict[str, dict[str, float]]] = {}
    for cell in records.plan["cells"]:
        found = s.intervals[metric].get(cell["label"])
        if found is not None:
            at = cell["settings"]
            said = "".join(f", {a} {text(at[a])}" for a in axes[2:])
            out.setdefault(said, {}).setdefault(text(at[axes[0]]), {})[text(at[axes[1]])] = found.mean
    return list(out.items())[:6]


def _heat(grid: dict[str, dict[str, float]], rows: str, cols: str) -> Figure:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    across = list(dict.fromkeys(c for row in grid.values() for c in row))
    every = [v for row in grid.values() for v in row.values() if np.isfinite(v)]
    low, high = (min(every), max(every)) if every else (0.0, 1.0)
    figure, axis = _panel(0.7 + 0.42 * len(grid), max(2.9, 0.5 + 0.72 * len(across)))
    shades, digits = colormaps["Blues"], max(0, min(6, 2 - int(np.floor(np.log10(max(high - low, 1e-9))))))
    for y, row in enumerate(grid.values()):
        for x, column in enumerate(across):
            if column not in row or not np.isfinite(row[column]):
                continue
            depth = 0.12 + 0.7 * ((row[column] - low) / (high - low) if high > low else 0.5)
            axis.add_patch(Rectangle((x - 0.48, -y - 0.46), 0.96, 0.92, fc=to_hex(shades(depth)), lw=0))
            ink = "#ffffff" if depth > 0.52 else "#10151a"  # on its own ground, light or dark page alike
            axis.text(x, -y, f"{row[column]:.{digits}f}", ha="center", va="center", color=ink, fontsize=8.5)
    axis.set_xlim(-0.5, len(across) - 0.5)
    axis.set_ylim(-len(grid) + 0.5, 0.5)
    axis.set_xticks(range(len(across)), [short(c, 16) for c in across])
    axis.set_yticks([-i for i in range(len(grid))], [short(r, 22) for r in grid])
    axis.set_xlabel(plain(cols))
    axis.set_ylabel(plain(rows))
    for side in axis.spines.values():
        side.set_visible(False)
    return _finish(figure, axis, "")


def _curves(records: Records) -> Iterator[Chart]:
    """What lies in the stages: the loss of each training, the bound by step, the schedule, where they are recorded."""
    trainings: dict[str, list[tuple[Any, Any]]] = {}
    bits: dict[str, list[tuple[Any, Any]]] = {}
    chains: dict[str, dict[str, list[tuple[Any, Any]]]] = {"alpha_bars": {}, "log_snr": {}}
    labels = {s["id"]: str(s["label"]) for s in records.plan["stages"]}
    seen: set[str] = set()
    for r in records.plan["results"]:
        store = Store(out_of(records, r))
        if r["train"] not in seen:
            seen.add(r["train"])
            name = re.sub(r"^train (.*) seed \S+$", r"\1", labels.get(r["train"], r["cell"]))
            lines = files.read_lines(store.folder("train", r["train"]) / "metrics.jsonl")
            points = [(x["step"], x["loss"]) for x in lines if isinstance(x, dict) and _number(x.get("loss"))]
            if len(points) > 1:
                x, y = zip(*dict(points).items(), strict=True)  # a resumed training may repeat a step
                trainings.setdefault(name, []).append((x, y))
            trained = store.record(TrainRecord, r["train"])
            chain = (trained and trained.chain) or {}
            for key, by in chains.items():
                if name not in by and key in chain:
                    by[name] = [_pair(chain["t"], chain[key])]
        if r["nll"] and r["nll"] not in seen:
            seen.add(r["nll"])
            bounds = store.record(NllRecord, r["nll"])
            shown = bounds and (bounds.unclipped if bounds.reported == "unclipped" else bounds.clipped)
            if shown and (curve := shown.curve):
                # The mean of a block of steps is drawn at the block's middle, on a scale of logarithms.
                middle = [(a * b) ** 0.5 for a, b in zip(curve["first"], curve["last"], strict=False)]
                bits.setdefault(r["cell"], []).append(_pair(middle, curve["bits"]))
    if trainings:
        alt = "Training loss by step, a colour a training, a thin line a seed."
        yield Chart("training", "training", "Loss by step", alt, _lines(trainings, "step", "loss", "log"))
    if bits:
        alt = "Bits per dimension of each step's term of the bound."
        yield Chart("bits-by-step", "bits", "Bits/dim by step", alt, _lines(bits, "t", "bits/dim", "log", "log"))
    titles = {"alpha_bars": ("Signal left, alpha-bar", "alpha-bar"), "log_snr": ("Log signal to noise", "log SNR")}
    for key, by in chains.items():
        if by:
            title, label = titles[key]
            yield Chart(
                f"schedule-{key.replace('_', '-')}", "schedules", title, f"{title}, by t.", _lines(by, "t", label)
            )


def _lines(
    series: dict[str, list[tuple[Any, Any]]], x: str, y: str, yscale: str = "linear", xscale: str = "linear"
) -> Figure:
    figure, axis = _panel(2.8)
    many = len(series) > len(SERIES)
    for i, (name, lines) in enumerate(series.items()):
        colour = SERIES[i % len(SERIES)] if not many or i == 0 else MUTED
        for n, (at, values) in enumerate(lines):
            label = short(name, 30) if n == 0 and not many else None
            axis.plot(at, values, color=colour, lw=1.1, alpha=0.85, label=label)
    axis.set_yscale(yscale)
    axis.set_xscale(xscale)
    if yscale == "log":
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        low, high = axis.get_ylim()
        low = max(low, high * 1e-6)  # what is next to nothing must not flatten the rest
        axis.set_ylim(low, high)
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    if not many:
        _legend(axis)
    return _finish(figure, axis, "y")


def _pair(t: Any, values: Any) -> tuple[Any, Any]:
    values = np.array([np.nan if v is None else v for v in values or ()], np.float64)
    return (np.arange(1, len(values) + 1) if t is None else np.asarray(t)), values


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def _panel(height: float, width: float = WIDTH) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=200)
    figure.patch.set_alpha(0)
    axis = figure.subplots()
    axis.patch.set_alpha(0)
    return figure, axis


def _legend(axis: Any) -> None:
    names = list(axis.get_legend_handles_labels()[1])
    columns = max(1, min(4, int(46 / (6 + max(map(len, names), default=0)))))
    axis.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, fontsize=7.5, frameon=False, labelcolor=INK,
        handlelength=1.2, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip


def _finish(figure: Figure, axis: Any, grid: str) -> Figure:
    for side in ("top", "right", *(("left",) if grid == "x" else ())):
        axis.spines[side].set_visible(False)
    for spine in axis.spines.values():
        spine.set_color(RULE)
    axis.tick_params(axis="both", which="both", length=0, labelsize=8, colors=MUTED, labelcolor=INK, pad=4)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_color(MUTED)
        label.set_fontsize(8)
    if grid:
        axis.grid(axis=grid, color=RULE, lw=0.6)
        axis.set_axisbelow(True)
    return figure


def _bytes(figure: Figure, ending: str, stem: str) -> bytes:
    from matplotlib import rc_context

    metadata = {"Software": None} if ending == "png" else {"Date": None, "Creator": None}
    # Text stays text in the SVG; each figure salts its own names, since several share one page.
    ground: dict[str, Any] = {} if ending == "svg" else {"facecolor": "#ffffff"}
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": f"ddpmkit {stem}", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks becomes a box
        figure.savefig(buffer, format=ending, metadata=metadata, bbox_inches="tight", pad_inches=0.05, **ground)
    return buffer.getvalue()
