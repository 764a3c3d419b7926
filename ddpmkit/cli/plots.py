"""``plot``: schedules, an image dissolving or appearing, losses, learning, samples by class, costs, splits of NLL."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpmkit.cli.options import PATH, Baseline, Global, Out, Plugins, Where
from ddpmkit.cli.streams import on_stdout
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpmkit.diffusion.tables_for import Tables
    from ddpmkit.study.strips import Strips

app = typer.Typer(help="Draw schedules, noising, losses, learning, classes.", no_args_is_help=True)

Study = Annotated[str | None, typer.Argument(help="Name or folder of a study; the newest by default")]
To = Annotated[Path | None, typer.Option("--to", help="File to write, .png, .svg or .pdf", **PATH)]
T = Annotated[int, typer.Option("--timesteps", help="T, steps of the forward process")]
Schedules = Annotated[str, typer.Argument(help="Comma list of schedules")]


def register(main: typer.Typer) -> None:
    """Add the commands to the application."""
    main.add_typer(app, name="plot")


@app.command()
def schedules(
    context: typer.Context,
    names: Schedules = "linear,cosine,sigmoid,quadratic",
    sigmas: Annotated[
        str, typer.Option(help="Comma list of sigmas; of learned and fitted ones the range")
    ] = "beta-tilde,beta",
    weightings: Annotated[str, typer.Option(help="Comma list of weightings")] = "simple,vlb,min-snr,p2",
    timesteps: T = 1000,
    to: To = None,
    plugin: Plugins = None,
) -> None:
    """Alpha-bar, log-SNR, reverse variances and weights over t.

    A line of each schedule goes to the terminal.
    """
    from ddpmkit.cli.console import print_rows
    from ddpmkit.diffusion.bound_terms import prior_bits
    from ddpmkit.diffusion.curves import curves
    from ddpmkit.report.draw.blocks import sparkline
    from ddpmkit.report.draw.schedules import schedules_figure

    given: Global = context.obj
    registry = given.registry(plugin)
    chains = _tables(registry, names, timesteps)
    rows = [
        (name, sparkline(c.alpha_bars), f"{c.alpha_bars[0]:.6f}", f"{c.alpha_bars[-1]:.3g}", f"{prior_bits(c):.3g}")
        for name, c in chains.items()
    ]
    print_rows(f"T = {timesteps}", ("schedule", "alpha-bar", "first", "last", "L_T bits/dim"), rows)
    variances = {n: registry.build("sigma", n) for n in spec.split(sigmas)}
    weights = {n: registry.build("weighting", n) for n in spec.split(weightings)}
    figure = schedules_figure({name: curves(chain, variances, weights) for name, chain in chains.items()})
    _write(figure, to or Path("schedules.png"))


@app.command()
def forward(
    context: typer.Context,
    names: Schedules = "linear,cosine,sigmoid,quadratic",
    dataset: Annotated[str, typer.Option(help="Data set the image is taken from")] = "digits",
    image: Annotated[int, typer.Option(help="Which test image")] = 5,
    timesteps: T = 1000,
    to: To = None,
    plugin: Plugins = None,
) -> None:
    """One image dissolving under each schedule.

    With the same noise, at the same fractions of T.
    """
    from ddpmkit.plugin.contract import images as load_images
    from ddpmkit.report.draw.strips import strips_figure
    from ddpmkit.study.forward_strips import forward_strips

    given: Global = context.obj
    registry = given.registry(plugin)
    data = load_images(registry.build("dataset", dataset))
    for note in data.notes:
        print(f"note: {note}", file=sys.stderr)
    if not 0 <= image < len(data.test):
        raise DdpmkitError(f"there is no test image {image}; there are {len(data.test)}", "use --image 0")
    strips = forward_strips(data.test[image], data.levels, _tables(registry, names, timesteps))
    _look(strips)
    _write(strips_figure(strips), to or Path("forward.png"))


@app.command()
def reverse(
    context: typer.Context,
    study: Study = None,
    out: Out = Path("results"),
    to: To = None,
    plugin: Plugins = None,
) -> None:
    """A sample of each cell of a study appearing out of noise.

    The same noise for all, from the study's trained networks.
    """
    from ddpmkit.report.draw.strips import strips_figure
    from ddpmkit.study.reverse_strips import reverse_strips
    from ddpmkit.study.store import find_study

    given: Global = context.obj
    strips = reverse_strips(find_study(study, out), given.registry(plugin))
    _look(strips)
    _write(strips_figure(strips), to or Path("reverse.png"))


@app.command()
def denoise(
    context: typer.Context,
    study: Study = None,
    images: Annotated[str, typer.Option(help="Comma list of test images")] = "5",
    out: Out = Path("results"),
    to: To = None,
    plugin: Plugins = None,
) -> None:
    """Real noised images, and what networks make of them.

    x_t above x0hat at several t, beside the truth; the same noise for each training of a study.
    """
    from ddpmkit.report.draw.strips import strips_figure
    from ddpmkit.study.denoise_strips import denoise_strips
    from ddpmkit.study.store import find_study

    given: Global = context.obj
    try:
        shown = [int(text) for text in images.split(",")]
    except ValueError:
        raise DdpmkitError(f"--images: '{images}' is no list of numbers", "--images 5,7") from None
    strips = denoise_strips(find_study(study, out), given.registry(plugin), shown)
    _look(strips)
    _write(strips_figure(strips), to or Path("denoise.png"))


@app.command()
def loss(
    context: typer.Context,
    study: Study = None,
    out: Out = Path("results"),
    to: To = None,
    plugin: Plugins = None,
) -> None:
    """Weight and loss of each cell over log-SNR, and the optimum.

    From what the study's likelihoods drew and its data; no network runs. No network's loss on training images
    lies below the optimal one but by chance.
    """
    from ddpmkit.report.draw.losses import losses_figure
    from ddpmkit.study.loss_curves import loss_curves
    from ddpmkit.study.store import find_study

    given: Global = context.obj
    curves = loss_curves(find_study(study, out), given.registry(plugin))
    _write(losses_figure(curves), to or Path("loss.png"))


@app.command()
def learning(
    study: Study = None,
    out: Out = Path("results"),
    to: To = None,
) -> None:
    """FD and NLL of several lengths, by steps and by seconds.

    From the study's records. Seconds hold the steps that a shorter training had made.
    """
    from ddpmkit.report.draw.learning import learning_figure
    from ddpmkit.report.judge.learning import learned
    from ddpmkit.report.judge.summarise import summarise
    from ddpmkit.report.read.frames import read_study
    from ddpmkit.study.store import find_study

    records = read_study(find_study(study, out))
    summary = summarise(records)
    curves = learned(records, summary)
    if not curves:
        raise DdpmkitError(
            f"study '{records.name}' has no distance or NLL of two lengths of training",
            "ddpmkit ablate --train-steps 600,1200 --axis lr_decay=constant,cooldown",
        )
    _write(learning_figure(curves, {metric: summary.head(metric) for metric in curves}), to or Path("learning.png"))


@app.command()
def classes(
    context: typer.Context,
    study: Study = None,
    where: Where = None,
    out: Out = Path("results"),
    to: To = None,
) -> None:
    """Samples with labels: a row a class, a column a guidance.

    The first samples of each class, from the same noise in every column.
    """
    from ddpmkit.report.draw.classes import classes_figure
    from ddpmkit.report.read.classes import the_grid
    from ddpmkit.report.read.conditions import select
    from ddpmkit.report.read.frames import read_study
    from ddpmkit.study.store import find_study

    records = select(read_study(find_study(study, out)), where or [])
    _write(classes_figure(the_grid(records)), to or Path("classes.png"))


@app.command()
def evaluations(
    study: Study = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric to draw, FD-digits; default: the first that has a line")
    ] = None,
    where: Where = None,
    out: Out = Path("results"),
    to: To = None,
) -> None:
    """A distance against network evaluations, a line a cell.

    Means over train seeds, with their intervals as bands, of a study that varies its sampling steps. The NLL has a line
    where it is that of the walk's own chain (nll_chain=walk).
    """
    from ddpmkit.report.draw.evaluations import evaluations_figure
    from ddpmkit.report.judge.by_evaluations import the_lines
    from ddpmkit.report.judge.summarise import summarise
    from ddpmkit.report.read.conditions import select
    from ddpmkit.report.read.frames import read_study
    from ddpmkit.study.store import find_study

    records = select(read_study(find_study(study, out)), where or [])
    summary = summarise(records)
    _write(evaluations_figure(the_lines(records, summary, metric), summary), to or Path("evaluations.png"))


@app.command()
def split(
    study: Study = None,
    baseline: Baseline = None,
    where: Where = None,
    out: Out = Path("results"),
    to: To = None,
) -> None:
    """What sets the NLL of cells apart, by log-SNR.

    Differences from the baseline in bins of log-SNR and summed from noise to the image, from the study's records.
    """
    from ddpmkit.report.draw.split import split_figure
    from ddpmkit.report.show.split_table import the_splits
    from ddpmkit.report.show.views import View
    from ddpmkit.report.write import make
    from ddpmkit.study.store import find_study

    _, summary, _ = make([find_study(study, out)], View(where=tuple(where or ())), baseline=baseline)
    _write(split_figure(the_splits(summary), summary.baseline), to or Path("split.png"))


def _tables(registry: Any, names: str, timesteps: int) -> dict[str, Tables]:
    from ddpmkit.diffusion.tables_for import tables_for

    return {name: tables_for(registry.build("schedule", name), timesteps) for name in spec.split(names)}


@on_stdout()
def _look(strips: Strips) -> None:
    """Show strips in the terminal, if stdout is one."""
    if not sys.stdout.isatty():
        return
    from ddpmkit.report.draw.blocks import HALF, terminal_strips
    from ddpmkit.text.layout import screen
    from ddpmkit.text.plain import carries

    console = screen()
    colour = console.color_system is not None and not console.no_color and carries(HALF, console.encoding)
    console.print(terminal_strips(strips, console.width, colour=colour), end="")


def _write(figure: Figure, path: Path) -> None:
    from ddpmkit.report.draw.save import save_as

    save_as(figure, path)
    print(f"wrote {path}", file=sys.stderr)
