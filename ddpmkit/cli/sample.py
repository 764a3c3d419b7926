"""``sample``: new images from a network that a study trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ddpmkit.cli.options import PATH, Global, Json, Out, Plugins
from ddpmkit.cli.streams import data
from ddpmkit.errors import DdpmkitError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: ddpmkit sample mine/cosine --count 64 --to grid.png")(sample)


def sample(
    context: typer.Context,
    cell: Annotated[str, typer.Argument(metavar="STUDY/CELL", help="A study by name or folder, and one of its cells")],
    count: Annotated[int, typer.Option("--count", help="How many images", min=1)] = 64,
    to: Annotated[
        Path, typer.Option("--to", help="x.png: all tiled; x.npz or x.safetensors: arrays; else a folder", **PATH)
    ] = Path("samples.png"),
    train_seed: Annotated[
        int | None, typer.Option(help="Train seed of the network; default: the first one that is trained")
    ] = None,
    sample_seed: Annotated[int, typer.Option(help="Seed of the noise; the study's own gives the study's samples")] = 0,
    sampler: Annotated[str | None, typer.Option(help="Another sampler than the study's", metavar="SPEC")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the walk; default: the study's")] = None,
    labels: Annotated[
        str | None, typer.Option(help="data, balanced, or classes in turn, as 0,3; of networks with labels")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Strength w of guidance; of networks with labels")] = None,
    out: Out = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Draw images from a trained cell of a study.

    With the study's seeds and sampler they are the study's own, bit for bit, and more of them where more are asked for.
    """
    import json as json_module

    from rich.progress import Progress

    from ddpmkit.cli.console import stderr_console
    from ddpmkit.cli.images import check_place, write_images
    from ddpmkit.study.loaded import load

    given: Global = context.obj
    check_place(to)
    loaded = load(cell, None, train_seed, out=out, registry=given.registry(plugin), device=device)
    console = stderr_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("sample", total=1.0)
        drawn = loaded.draw(
            count,
            seed=sample_seed,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            labels=_labels(labels),
            on_progress=lambda done: bar.update(task, completed=done),
        )
    try:
        write_images(drawn, to)
    except OSError as err:
        raise DdpmkitError(f"can't write '{to}': {err.strerror}", "--to another place") from None
    print(f"wrote {to}", file=sys.stderr)
    if json:
        record = {
            "study": loaded.cell.study,
            "cell": loaded.cell.label,
            "train": loaded.cell.training,
            "train_seed": loaded.cell.train_seed,
            "sample_seed": sample_seed,
            "count": count,
            "levels": drawn.levels,
            "labels": None if drawn.labels is None else drawn.labels.tolist(),
            "evaluations": drawn.evaluations,
            "to": str(to),
        }
        print(json_module.dumps(record, indent=1), file=data())


def _labels(text: str | None) -> str | list[int] | None:
    """Read ``balanced`` or ``0,3``."""
    if text is None or text in ("data", "balanced"):
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise DdpmkitError(f"--labels '{text}': expected classes", "--labels 0,3, data or balanced") from None
