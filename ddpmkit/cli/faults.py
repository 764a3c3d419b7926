"""Options of ``ablate`` that say where stages run, and what happens to those that end badly."""

from __future__ import annotations

from typing import Annotated

import typer

from ddpmkit.cli.panels import RUNNING

Device = Annotated[
    str,
    typer.Option(
        "--device", "--devices", help="auto, cpu, cuda, mps, or some: cuda:0,cuda:1", metavar="NAME,..",
        rich_help_panel=RUNNING,
    ),
]  # fmt: skip
PerDevice = Annotated[
    int | None,
    typer.Option("--per-device", help="Workers a device, instead of --jobs", metavar="INT", rich_help_panel=RUNNING),
]
Timeout = Annotated[
    str | None,
    typer.Option(
        help="Time that one attempt at a stage may take: 90s, 45m, 2h; it ends with a checkpoint, or is killed",
        metavar="TIME",
        rich_help_panel=RUNNING,
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        help="How often a stage that failed is tried again; default 0", metavar="INT", rich_help_panel=RUNNING
    ),
]
Canary = Annotated[
    bool,
    typer.Option("--canary", help="Run one cell first, and the others only if it ends well", rich_help_panel=RUNNING),
]
StopAfter = Annotated[
    int | None,
    typer.Option(help="Stop once so many stages have failed alike", metavar="INT", rich_help_panel=RUNNING),
]
