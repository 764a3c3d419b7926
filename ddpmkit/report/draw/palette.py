"""The colours and dashes of every figure; nothing is drawn in a colour that does not stand here."""

from __future__ import annotations

# Okabe and Ito's colours, the yellow darkened and the black left out for the ink: colour-blind readers tell them apart,
# and they stay apart in print. The report's page has its own shades of them for the dark.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b88700", "#56b4e9", "#6a4fa3", "#7f7f7f")
INK, MUTED, RULE = "#1c2024", "#667079", "#dfe3e7"  # text, what is said beside it, lines of a grid
PAPER = "#ffffff"
BETTER, WORSE = SERIES[0], SERIES[1]
SHADES = "Blues"  # matplotlib's name of the scale of a grid of numbers
ON_DARK, ON_LIGHT = "#ffffff", "#10151a"  # a number on its shade, whatever the page's own ground
# In a page the same drawing serves light and dark: there these become CSS variables.
VARIABLES = {c: f"var(--s{i})" for i, c in enumerate(SERIES)} | {
    INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"
}  # fmt: skip
DASHES = ("-", "--", ":", "-.", (0, (6, 1)), (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)), (0, (3, 4)))


def series(count: int) -> tuple[str, ...]:
    """Return a colour for each of so many series: the eight named ones, of more a scale from dark to light."""
    if count <= len(SERIES):
        return SERIES[:count]
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return tuple(to_hex(colormaps["viridis"](0.9 * i / (count - 1))) for i in range(count))
