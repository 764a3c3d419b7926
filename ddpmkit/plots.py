"""Pictures of the design choices themselves: schedules against t, an image dissolving, a sample appearing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit.diffusion.tables import Array, Tables, checked_weights, log_bounds
from ddpmkit.report.colour import as_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.text import Text
    from torch import Tensor

    from ddpmkit.plugin.interfaces import Levels, Sigma, Weighting

COLOURS = ("#4C72B0", "#DD8452", "#55A868", "#C44E52", "#8172B3", "#937860", "#DA8BC3", "#8C8C8C")
HALF = "▀"  # the upper half of a character: two pixels, one in its colour and one in that of the ground
FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def schedules_figure(
    tables: Mapping[str, Tables], sigmas: Mapping[str, Sigma], weightings: Mapping[str, Weighting]
) -> Figure:
    """Draw alpha-bar, log-SNR, the reverse variances and the weights on the eps-error against t/T, a colour a schedule.

    Args:
        tables: Label -> chain.
        sigmas: Label -> reverse variance; each gets its own line style, the range of one that varies is shaded.
        weightings: Label -> weighting, at the first sigma; each gets its own line style.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(10, 6.4), dpi=160)
    axes = figure.subplots(2, 2).flatten()
    styles = ("-", "--", ":", "-.")
    first_sigma = next(iter(sigmas.values()))
    for index, (label, chain) in enumerate(tables.items()):
        colour, t = COLOURS[index % len(COLOURS)], (np.arange(chain.T) + 1) / chain.T
        with np.errstate(divide="ignore"):
            log_snr = np.log(chain.snr)
        axes[0].plot(t, chain.alpha_bars, color=colour, label=label)
        axes[1].plot(t, log_snr, color=colour)
        for style, sigma in zip(styles, sigmas.values(), strict=False):
            low, high = log_bounds(sigma, chain)
            axes[2].plot(t, np.exp(low), style, color=colour)
            if sigma.learned or sigma.fitted:  # where it lies is for the network to say
                axes[2].fill_between(t, np.exp(low), np.exp(high), color=colour, alpha=0.12, lw=0)
        log_sigma2 = log_bounds(first_sigma, chain)[1]
        for style, weighting in zip(styles, weightings.values(), strict=False):
            axes[3].plot(t, eps_weights(weighting, chain, log_sigma2), style, color=colour)
    axes[0].set_title("alpha-bar: what is left of the signal", fontsize=9)
    axes[1].set_title("log SNR", fontsize=9)
    axes[2].set_title("reverse variance sigma^2", fontsize=9)
    axes[3].set_title(f"weight on the eps-error (sigma {next(iter(sigmas))})", fontsize=9)
    for axis in axes[2:]:
        axis.set_yscale("log")
        axis.set_xlabel("t / T", fontsize=8)
    for axis, names in ((axes[2], sigmas), (axes[3], weightings)):
        lines = [Line2D([], [], color="#555555", ls=s, label=n) for s, n in zip(styles, names, strict=False)]
        axis.legend(handles=lines, fontsize=7, frameon=False)
    axes[0].legend(fontsize=7.5, frameon=False)
    for axis in axes:
        axis.tick_params(labelsize=7.5)
        axis.grid(color="#e4e4e4", lw=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout(pad=0.8)
    return figure


def eps_weights(weighting: Weighting, tables: Tables, log_sigma2: Array) -> Array:
    """Return the factor on the squared eps-error, (T,); NaN where the chain has no signal and it is not defined."""
    x0_weights = checked_weights(weighting, tables, log_sigma2)
    if weighting.space == "prediction":
        return x0_weights
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(tables.snr > 0, x0_weights / tables.snr, np.nan)


@dataclass(frozen=True)
class Strip:
    """One labelled row of pictures, uint8 grey levels (N, C, H, W)."""

    label: str
    images: Levels


def forward_strips(image: Levels, levels: int, tables: Mapping[str, Tables], seed: int = 0) -> list[Strip]:
    """Dissolve one image (C, H, W) under each schedule with the same noise, at the same fractions of T.

    x_t = m_t x0 + S_t eps; a chain that explodes is shown divided by sqrt(m_t^2 + S_t^2).
    """
    import torch

    from ddpmkit.pixels import quantise, to_pixels
    from ddpmkit.randomness import normal, stream_key

    x0 = to_pixels(torch.from_numpy(image), levels)
    eps = normal(stream_key(seed, "noise"), torch.zeros(1, dtype=torch.int64), tuple(x0.shape))[0]
    strips = []
    for label, chain in tables.items():
        row = []
        for fraction in FRACTIONS:
            t = round(fraction * chain.T) - 1
            signal, noise = (1.0, 0.0) if t < 0 else (float(chain.signal[t]), float(chain.noise2[t]) ** 0.5)
            scale = 1.0 if t < 0 else float(chain.input_scale[t])
            row.append(quantise(scale * (signal * x0 + noise * eps), levels).numpy())
        strips.append(Strip(label, np.stack(row)))
    return strips


def watched(denoise: Callable[..., Any], seen: dict[int, Tensor]) -> Callable[..., Any]:
    """Return the denoiser, writing down every x_t that it is shown, by step index."""

    def looking(x: Tensor, t: int) -> Any:
        seen[t] = x
        return denoise(x, t)

    return looking


def strips_figure(strips: Sequence[Strip], levels: int, heads: Sequence[str]) -> Figure:
    """Draw labelled rows of pictures under their column heads."""
    from matplotlib.figure import Figure

    across = len(strips[0].images)
    figure = Figure(figsize=(0.72 * across + 1.2, 0.78 * len(strips) + 0.35), dpi=200)
    axes = figure.subplots(len(strips), across, squeeze=False)
    for number, (row, strip) in enumerate(zip(axes, strips, strict=True)):
        for column, (axis, image) in enumerate(zip(row, as_rgb(strip.images, levels), strict=True)):
            axis.imshow(image, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set(color="#bbbbbb", lw=0.5)
            if number == 0:
                axis.set_title(heads[column], fontsize=7.5, color="#444444", pad=3)
        row[0].set_ylabel(strip.label.replace("$", r"\$"), rotation=0, ha="right", va="center", fontsize=8.5)
    figure.subplots_adjust(wspace=0.06, hspace=0.06)
    return figure


def terminal_strips(
    strips: Sequence[Strip], levels: int, heads: Sequence[str], width: int, *, colour: bool = True
) -> Text:
    """Draw labelled rows of pictures as half blocks, two pixels a character; as many columns as fit, the ends included.

    Large images are thinned to 16 pixels: this is for a quick look. Without colour, shades stand for brightness. Labels
    that leave the pictures no room stand on lines of their own.
    """
    from rich.cells import cell_len
    from rich.style import Style
    from rich.text import Text

    pictures = [as_rgb(strip.images, levels) for strip in strips]
    size = max(pictures[0].shape[1:3])
    thin = slice(None, None, max(1, -(-size // 16)))
    across = len(range(pictures[0].shape[2])[thin])
    longest = max(cell_len(s.label) for s in strips)
    above = longest > 24 or longest + 2 + 2 * (across + 1) > width
    margin = 2 if above else longest + 2
    count = max(2, min(len(heads), (width - margin) // (across + 1)))
    shown = np.linspace(0, len(heads) - 1, count).round().astype(int)
    out = Text(" " * margin + " ".join(heads[i][:across].ljust(across) for i in shown) + "\n", style="dim")
    for strip, drawn in zip(strips, pictures, strict=True):
        pixels = drawn[shown][:, thin, thin].transpose(0, 3, 1, 2).astype(int)
        if above:
            out.append(strip.label + "\n")
        for y in range(0, pixels.shape[2], 2):
            out.append(strip.label + " " * (margin - cell_len(strip.label)) if y == 0 and not above else " " * margin)
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


def sparkline(values: Array, width: int = 32) -> str:
    """Draw values in [0, 1] as one line of block characters."""
    blocks = " ▁▂▃▄▅▆▇█"
    index = np.linspace(0, len(values) - 1, width).round().astype(int)
    return "".join(blocks[round(float(np.clip(v, 0, 1)) * (len(blocks) - 1))] for v in values[index])
