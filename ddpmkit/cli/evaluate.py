"""``evaluate``: score any images against any reference; no training is needed."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpmkit.cli.options import PATH, Global, Json, Plugins
from ddpmkit.cli.streams import data
from ddpmkit.errors import DdpmkitError, Exit, did_you_mean
from ddpmkit.files import home
from ddpmkit.plugin import spec

if TYPE_CHECKING:
    from ddpmkit.distances import Panel, Reference
    from ddpmkit.plugin.interfaces import Features, Images, Metric
    from ddpmkit.plugin.registry import Registry

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
        int | None, typer.Option("--k", min=1, help="Neighbours of precision, recall, density and coverage; default 5")
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
    registry = given.registry(plugin)
    from ddpmkit.distances.images import read_images, read_statistics, write_statistics

    notes: list[str] = []
    span = _span(range_)
    stored = read_statistics(home(reference))
    held, named = (None, False) if stored else _reference_images(registry, reference, span, notes.append)
    names = spec.split(features) if features else _default(registry, reference, held, named)
    if save_statistics and (len(names) > 1 or stored):
        raise DdpmkitError("--save-statistics is for one extractor over images", f"use --features {names[0]}")
    extractors = [_build(registry, name, inception_weights) for name in names]
    chosen = [registry.build("metric", text) for text in spec.split(metrics)] if metrics else None
    if held is not None:
        shape = {"channels": held.train.shape[1], "declared": levels, "levels": held.levels}
    else:
        shape = {"declared": levels, "levels": levels or 256}
    drawn = read_images(samples, span=span, say=notes.append, **shape)
    copied = read_images(train, channels=drawn.shape[1], span=span, say=notes.append) if train else None
    panels = []
    for extractor in extractors:
        if stored is not None:
            prepared = _from_statistics(stored, extractor, drawn, levels or 256)
        elif held is not None and named:
            prepared = _from_dataset(held, extractor, reference_split, len(drawn), chosen, k)
        elif held is not None:
            prepared = _from_folder(held, extractor, copied, chosen, k)
        panels.append(_score(drawn, prepared, chosen, k))
        if save_statistics:
            write_statistics(save_statistics, prepared.mu, prepared.cov, prepared.protocol)
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
    return (
        f"{p['label']}: N = {p['n']} against {of} reference images{split}; extractor {(p['extractor'] or '-')[:8]}; "
        f"D = {p['dims']}, resize {p['resize']}, {p['levels']} levels, quantised to the {p['quantiser']}; "
        f"k = {p['k']}, distance < radius{floor}; se: over the samples, the reference held fixed"
    )


def _reference_images(
    registry: Registry, text: str, span: tuple[float, float] | None, say: Callable[[str], None]
) -> tuple[Images, bool]:
    """Return a data set by its name; or the images at a path, as a data set whose splits are the same; and which."""
    from ddpmkit.distances.images import read_images
    from ddpmkit.plugin.contract import images as load_images
    from ddpmkit.plugin.interfaces import Images

    known = {name for entry in registry.entries("dataset") for name in (entry.name, entry.qualified)}
    name = text.partition(":")[0]
    if name in known:
        return load_images(registry.build("dataset", text)), True
    path = home(text)
    if not path.exists():
        raise DdpmkitError(
            f"'{text}' is neither a data set, a folder nor a file{did_you_mean(name, known)}", "ddpmkit ls dataset"
        )
    array = read_images(path, span=span, say=say)
    return Images(array, array[:0], array, 256, {}), False


def _default(registry: Registry, text: str, held: Images | None, named: bool) -> list[str]:
    if held is None:
        return ["inception"]  # what statistics in the wild were made with
    return list(registry.build("dataset", text).default_features) if named else ["pca:k=16"]


def _build(registry: Registry, name: str, weights: Path | None) -> Features:
    if weights is not None and spec.parse(name)[0] == "inception":
        name += f":weights={spec.encode(str(weights))}"
    built: Features = registry.build("features", name)
    return built


def _from_dataset(
    held: Images, extractor: Features, split: str, count: int, metrics: list[Metric] | None, k: int | None
) -> Reference:
    from ddpmkit import device as devices
    from ddpmkit.distances import prepare

    with devices.one_thread():
        prepared = prepare(held, extractor, split=split, floor=count, metrics=metrics, k=k)
        prepared.check_again()
        return prepared


def _from_folder(
    held: Images, extractor: Features, train: Any, metrics: list[Metric] | None, k: int | None
) -> Reference:
    from dataclasses import replace

    from ddpmkit import device as devices
    from ddpmkit.distances import floor_of_halves, prepare

    with devices.one_thread():
        whole = prepare(held, extractor)
        whole.check_again()
        floor = floor_of_halves(whole, k, metrics)
    heldout = None if train is None else held.test
    return replace(whole, train=train, heldout=heldout, floor=floor, protocol=whole.protocol | {"split": None})


def _from_statistics(stored: Any, extractor: Features, drawn: Any, levels: int) -> Reference:
    from ddpmkit.distances import statistics
    from ddpmkit.plugin.contract import fingerprint
    from ddpmkit.plugin.interfaces import Images

    made = stored.meta.get("extractor")
    if made is not None and made != (here := fingerprint(extractor)):
        raise DdpmkitError(
            f"the statistics were made with the extractor {made[:8]}, and '{extractor.name}' is {here[:8]}",
            f"use --features {stored.meta.get('features', '..')}",
        )
    if made is None:
        print("warning: the statistics do not say what extractor made them; nothing can check it", file=sys.stderr)
    origin = {key: stored.meta[key] for key in ("split", "reference") if key in stored.meta}
    origin["statistics"] = stored.sha256
    images = Images(drawn, drawn[:0], drawn, levels, {})
    n = int(stored.meta.get("n_reference", 0))
    return statistics(stored.mu, stored.cov, images, extractor, n=n, origin=origin)


def _score(drawn: Any, prepared: Reference, metrics: list[Metric] | None, k: int | None) -> Panel:
    from ddpmkit import device as devices
    from ddpmkit.distances import score

    with devices.one_thread():
        return score(drawn, prepared, metrics=metrics, k=k, keep=True)
