"""Options of ``ablate`` that choose which points of the grid are cells."""

from __future__ import annotations

from typing import Annotated

import typer

from ddpmkit.cli.panels import AXES, BUDGET, RUNNING
from ddpmkit.study.condition import SIGNS

Zip = Annotated[
    list[str] | None,
    typer.Option(
        "--zip",
        help="Settings that vary together: schedule+learning_rate=linear:4e-3,cosine:2e-3. Repeatable",
        metavar="A+B=X:Y,..",
        rich_help_panel=AXES,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        help=f"Leave out the cells that satisfy 'sigma=learned-range and weighting=simple'; {SIGNS}, or a cell's "
        "label. Repeatable",
        metavar="CONDITION",
        rich_help_panel=AXES,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        help=f"Keep the cells that satisfy one of these conditions, {SIGNS}, or have one of these labels. Repeatable",
        metavar="CONDITION",
        rich_help_panel=AXES,
    ),
]
Design = Annotated[
    str | None,
    typer.Option(
        "--design",
        help="full: every combination; one-at-a-time: the baseline, and each other level with the rest of it; "
        "default full",
        metavar="NAME",
        rich_help_panel=AXES,
    ),
]
Baseline = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        help="Levels that the others are held against; default the first of each axis",
        metavar="NAME=VALUE,..",
        rich_help_panel=AXES,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="quick: a smoke test, 400 steps and 200 samples; draw no conclusions. small: half of everything but the "
        "training. paper: the budget of DDPM on CIFAR-10 (days on a GPU)",
        metavar="NAME",
        rich_help_panel=BUDGET,
    ),
]
Yes = Annotated[
    bool,
    typer.Option("--yes", help="Run a grid of more than 10,000 results too", rich_help_panel=RUNNING),
]
