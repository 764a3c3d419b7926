"""``evaluate``: score any images against any reference; no training is needed."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmkit.cli.options import PATH, Global, Json, Plugins
from ddpmkit.cli.streams import data
from ddpmkit.errors import DdpmkitError, Exit

if TYPE_CHECKING:
    from ddpmkit.distances import Panel

SIGNS = {"lower": "lower is better", "higher": "higher is better", "none": ""}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(evaluate)


def evaluate(
    context: typer.Context,
    samples: Annotated[
        Path | None, typer.Option(help="Folder of images, or a .npz or .safetensors file", **PATH)
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Data set, folder, .npz or .safetensors file of images, or of statistics (mu, sigma)"),
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Comma list of feature extractors; default: the data set's own, or pca:k=16")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Comma list of metrics; default: all built-in ones that the reference allows")
    ] = None,
    reference_split: Annotated[
        str, typer.Option(help="test or train, of a data set; papers use train, which rewards copies")
    ] = "test",
    train: Annotated[Path | None, typer.Option(help="Training images, for the copy check of a folder", **PATH)] = None,
    levels: Annotated[
        int | None,
        typer.Option(
            min=2, max=256, help="Grey levels of the samples; default: 256 for image files, else as reference"
        ),
    ] = None,
    range_: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="BLACK,WHITE",
            help="Black and white in arrays of floats: 0,1 or -1,1 or 0,255; asked for where none is negative",
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            min=1,
            help="Neighbours of precision, recall, density, coverage, if --metrics says none; default 5",
        ),
    ] = None,
    inception_weights: Annotated[
        Path | None, typer.Option(help="Weights file of the inception features", **PATH)
    ] = None,
    save_statistics: Annotated[
        Path | None,
        typer.Option(help="Keep mean and covariance of the reference, a .safetensors file for --reference", **PATH),
    ] = None,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Score any images against any reference.

    Distances come with errors and floors, precision and recall, a classifier's test and a copy check.
    """
    import json as json_module

    given: Global = context.obj
    if samples is None or reference is None:
        raise DdpmkitError(
            "evaluate needs --samples and --reference", "as in ddpmkit evaluate --samples FOLDER --reference digits"
        )
    from ddpmkit.study.score_images import ScoreRequest, score_images

    asked = ScoreRequest(
        samples, reference, features=features, metrics=metrics, reference_split=reference_split, train=train,
        levels=levels, span=_span(range_), k=k, inception_weights=inception_weights, save_statistics=save_statistics,
    )  # fmt: skip
    panels, notes = score_images(given.registry(plugin), asked)
    if save_statistics:
        print(f"wrote {save_statistics}", file=sys.stderr)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    if json:
        print(json_module.dumps({"panels": [p.record() for p in panels]}, indent=1, allow_nan=False), file=data())
    else:
        _show(panels, samples)
    if any(p.failed for p in panels):
        raise typer.Exit(int(Exit.FAILED))


def _span(text: str | None) -> tuple[float, float] | None:
    """Read ``0,1``: the values of black and white."""
    if text is None:
        return None
    try:
        black, white = (float(part) for part in text.split(","))
    except ValueError:
        black, white = 0.0, 0.0
    if not (math.isfinite(black) and math.isfinite(white) and black < white):
        raise DdpmkitError(f"--range {text}: expected two numbers, black below white", "as in --range 0,1")
    return black, white


def _show(panels: list[Panel], samples: Path) -> None:
    from ddpmkit.cli.console import print_rows

    rows = []
    for panel in panels:
        for name, found in panel.items():
            floor, better = panel.floor.get(name, {}).get("value"), panel.kinds[name].better
            se = "" if found.se is None else f"{found.se:.3g}"
            cells = (f"{found.value:.5g}", se, "" if floor is None else f"{floor:.5g}", SIGNS[better])
            rows.append((panel.protocol["features"], panel.title(name), *cells, panel.remark(name)))
    heads = ("features", "metric", "value", "se", "floor", "", "remark")
    print_rows(f"{samples} against the reference", heads, rows, keys=(0, 1), prose=(6,))
    for panel in panels:
        print(_footnote(panel), file=sys.stderr)
        for note in panel.notes:
            print(f"note: {panel.protocol['label']}: {note}", file=sys.stderr)


def _footnote(panel: Panel) -> str:
    p = panel.protocol
    split = f", split {p['split']}" if p["split"] else ""
    of = f"{p['n_reference']}" if p["n_reference"] else "an unknown number of"
    floors = sorted({f["n"] for f in panel.floor.values()})
    floor = f"; floor: real images, N = {floors[0]}" if floors else ""
    k = " and ".join(map(str, p["k"])) if isinstance(p["k"], list) else p["k"]
    return (
        f"{p['label']}: N = {p['n']} against {of} reference images{split}; extractor {(p['extractor'] or '-')[:8]}; "
        f"D = {p['dims']}, resize {p['resize']}, {p['levels']} levels, quantised to the {p['quantiser']}; "
        f"k = {k}, distance < radius{floor}; se: over the samples, the reference held fixed"
    )
