"""``evaluate``: score any images against any reference, or bound the likelihood of one trained network."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpmkit.cli.options import PATH, Global, Json, Out, Plugins
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
    nll: Annotated[
        str | None, typer.Option(help="Bound the likelihood of a training instead: its id, or the start of it")
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
    sigma: Annotated[
        str | None,
        typer.Option(help="With --nll: the reverse variance; default: the one it learned, or else beta-tilde"),
    ] = None,
    split: Annotated[str, typer.Option(help="With --nll: test or train")] = "test",
    nll_evals: Annotated[int, typer.Option(min=16, help="With --nll: network evaluations for the middle sum")] = 8192,
    nll_se: Annotated[float | None, typer.Option(help="With --nll: standard error to reach, bits/dim")] = None,
    nll_full: Annotated[bool, typer.Option("--nll-full", help="With --nll: every image at every step")] = False,
    decoder: Annotated[str, typer.Option(help="With --nll: cdf, cdf-tanh, softmax or continuous")] = "cdf",
    decoder_variance: Annotated[str, typer.Option(help="With --nll: tilde2 or beta1")] = "tilde2",
    ema: Annotated[
        float | None, typer.Option(help="With --nll: rate of the average, where a training kept several")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="With --nll: K steps of a strided chain")] = None,
    ode: Annotated[
        int,
        typer.Option(
            min=0, help="With --nll: the probability-flow ODE's likelihood too, of so many images; 9 s for each 8x8 one"
        ),
    ] = 0,
    out: Out = Path("results"),
    device: Annotated[str, typer.Option(help="With --nll: auto, cpu, cuda, cuda:1 or mps")] = "auto",
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Score images against a reference, or bound the likelihood of a trained network (--nll).

    Distances come with errors and floors, precision and recall, a copy check; the bound with its two errors and terms.
    """
    import json as json_module

    given: Global = context.obj
    registry = given.registry(plugin)
    if nll is not None:
        if samples is not None or reference is not None:
            raise DdpmkitError("--nll looks at a training, not at samples", "leave out --samples and --reference")
        asked = {"sigma": sigma, "split": split, "evals": nll_evals, "se": nll_se, "full": nll_full}
        asked |= {"decoder": decoder, "decoder_variance": decoder_variance, "steps": steps, "ode": ode, "ema": ema}
        _likelihood(registry, nll, asked, out, device, json)
        return
    if samples is None or reference is None:
        raise DdpmkitError(
            "evaluate needs --samples and --reference, or --nll",
            "as in ddpmkit evaluate --samples FOLDER --reference digits",
        )
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


CHOICES = {
    "split": ("test", "train"),
    "decoder": ("cdf", "cdf-tanh", "softmax", "continuous"),
    "decoder_variance": ("tilde2", "beta1"),
}


def _likelihood(registry: Registry, training: str, asked: dict[str, Any], out: Path, device: str, json: bool) -> None:
    import json as json_module

    from ddpmkit.cli.console import print_rows, stderr_console
    from ddpmkit.study.likelihood import Asked, likelihood
    from ddpmkit.study.store import Store

    for key, known in CHOICES.items():
        if asked[key] not in known:
            flag = f"--{key.replace('_', '-')}"
            raise DdpmkitError(f"{flag} can't be '{asked[key]}'", f"one of {', '.join(known)}")
    if asked["se"] is not None and asked["full"]:
        raise DdpmkitError("--nll-se and --nll-full are two ways of saying how much", "give one of them")
    from rich.progress import Progress

    console = stderr_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("likelihood", total=1.0)
        found = likelihood(
            Store(out),
            registry,
            training,
            Asked(**asked),
            device=device,
            on_progress=lambda f: bar.update(task, completed=f),
        )
    if json:
        print(json_module.dumps(found, indent=1, allow_nan=False), file=data())
        return
    rows = []
    for name in ("clipped", "unclipped"):
        b = found[name]
        test = "" if b["test_set_error"] is None else f"{b['test_set_error']:.4f}"
        terms = (f"{b[k]:.4f}" for k in ("prior", "middle", "decoder"))
        rows.append((name, f"{b['total']:.4f}", f"{b['standard_error']:.4f}", test, *terms))
    heads = ("x0hat", "bits/dim", "Monte-Carlo se", "test-set se", "L_T", "sum L_t-1", "L_0")
    print_rows(f"NLL, {found['label']}", heads, rows)
    flow = found.get("probability_flow")
    if flow is not None:
        columns = ("bits/dim", "test-set se", "step error", "images", "divergence", "evaluations")
        told = (flow[k] for k in ("total", "test_set_error", "step_error"))
        numbers = ("" if v is None else f"{v:.4f}" for v in told)
        row = (*numbers, str(flow["images"]), flow["divergence"], f"{flow['evaluations']:,}")
        print_rows("probability-flow ODE; another number than the bound", columns, [row])
    chain = f"all {found['T']} steps" if found["steps"] == found["T"] else f"{found['steps']} of {found['T']} steps"
    print(
        f"{found['images']} images of split {found['split']}, {chain}, EMA {found['ema']}, sigma {found['sigma']}, "
        f"decoder {found['decoder']} with variance {found['decoder_variance']}; {found['evaluations']:,} network "
        f"evaluations, a full sweep takes {found['full_sweep']:,}",
        file=sys.stderr,
    )


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
