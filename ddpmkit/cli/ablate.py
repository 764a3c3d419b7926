"""``ablate``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmkit.cli.faults import Canary, Device, PerDevice, Retries, StopAfter, Timeout
from ddpmkit.cli.grid import Baseline, Design, Exclude, Only, Preset, Yes, Zip
from ddpmkit.cli.options import PATH, Global, Json, Out, Plugins, setting
from ddpmkit.cli.panels import AXES, BUDGET, OUTPUT, RUNNING, SEEDS, Paneled
from ddpmkit.cli.streams import data, on_stdout
from ddpmkit.cli.tune import Tune, TuneSeeds, tuned
from ddpmkit.cli.until import MOST, Budget, Margin, MaxSeeds, Until, UntilMetric, check, check_names, run_until
from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.study.settings import DEFAULT_METRICS, FIELDS

if TYPE_CHECKING:
    from ddpmkit.study.prepare import Prepared

EXAMPLE = "Example: ddpmkit ablate --schedules linear,cosine:s=0.01 --train-seeds 0-4 -n"
SETTINGS = f"Settings: {', '.join(FIELDS)}"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(cls=Paneled, epilog=EXAMPLE)(ablate)


def ablate(
    context: typer.Context,
    study: Annotated[
        Path | None, typer.Argument(help="A study by name, or a .toml file; flags override it.", **PATH)
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A study that is shipped with a paper's table: ddpmkit ls recipe",
            metavar="NAME",
            rich_help_panel=AXES,
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="Of a recipe: digits, mnist, emoji or cifar10", metavar="NAME", rich_help_panel=BUDGET),
    ] = None,
    schedules: Annotated[str | None, setting("schedule", "--schedules", "--schedule", panel=AXES)] = None,
    sigmas: Annotated[str | None, setting("sigma", "--sigmas", "--sigma", panel=AXES)] = None,
    weightings: Annotated[str | None, setting("weighting", "--weightings", "--weighting", panel=AXES)] = None,
    backbones: Annotated[str | None, setting("backbone", "--backbones", "--backbone", panel=AXES)] = None,
    samplers: Annotated[str | None, setting("sampler", "--samplers", "--sampler", panel=AXES)] = None,
    predictions: Annotated[str | None, setting("prediction", "--predictions", "--prediction", panel=AXES)] = None,
    guidances: Annotated[str | None, setting("guidance", "--guidances", "--guidance", panel=AXES)] = None,
    timesteps: Annotated[str | None, setting("timesteps", panel=AXES)] = None,
    timestep_sampling: Annotated[str | None, setting("timestep_sampling", panel=AXES)] = None,
    sampling_steps: Annotated[str | None, setting("sampling_steps", panel=AXES)] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            help=f"Any setting as an axis, or set it. Repeatable. {SETTINGS}",
            metavar="NAME=VALUE,..",
            rich_help_panel=AXES,
        ),
    ] = None,
    zip: Zip = None,
    exclude: Exclude = None,
    only: Only = None,
    design: Design = None,
    baseline: Baseline = None,
    dataset: Annotated[str | None, setting("dataset", panel=BUDGET)] = None,
    train_steps: Annotated[str | None, setting("train_steps", panel=BUDGET)] = None,
    batch_size: Annotated[str | None, setting("batch_size", panel=BUDGET)] = None,
    learning_rate: Annotated[str | None, setting("learning_rate", panel=BUDGET)] = None,
    dropout: Annotated[str | None, setting("dropout", panel=BUDGET)] = None,
    conditional: Annotated[
        bool | None,
        typer.Option("--conditional", help="Train with the labels of the data", rich_help_panel=BUDGET),
    ] = None,
    precision: Annotated[str | None, setting("precision", panel=BUDGET)] = None,
    samples: Annotated[str | None, setting("samples", panel=BUDGET)] = None,
    nll_evals: Annotated[str | None, setting("nll_evals", panel=BUDGET)] = None,
    nll_se: Annotated[str | None, setting("nll_se", panel=BUDGET)] = None,
    nll_full: Annotated[
        bool | None,
        typer.Option("--nll-full", help="Every test image at every step, instead of nll_evals", rich_help_panel=BUDGET),
    ] = None,
    train_seeds: Annotated[
        str | None,
        typer.Option(
            help="Train seeds, the replicates: 0-2 or 0,3,5; default 0-2", metavar="SEEDS", rich_help_panel=SEEDS
        ),
    ] = None,
    sample_seeds: Annotated[
        str | None,
        typer.Option(help="Sample seeds, averaged inside; default 0", metavar="SEEDS", rich_help_panel=SEEDS),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help=f"Metrics, as ddpmkit ls metric lists them, and nll; default {','.join(DEFAULT_METRICS)}",
            metavar="SPEC,..",
            rich_help_panel=SEEDS,
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Feature extractors; default: the data set's own", metavar="SPEC,..", rich_help_panel=SEEDS),
    ] = None,
    preset: Preset = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the study; default: data set and hash of the grid", metavar="NAME", rich_help_panel=OUTPUT
        ),
    ] = None,
    out: Out = Path("results"),
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", help="Workers at once; default one a core or GPU", metavar="INT", rich_help_panel=RUNNING
        ),
    ] = None,
    device: Device = "auto",
    per_device: PerDevice = None,
    executor: Annotated[
        str,
        typer.Option(help="Where stages run: local, inline, ray, a plugin's", metavar="SPEC", rich_help_panel=RUNNING),
    ] = "local",
    checkpoint_every: Annotated[
        int, typer.Option(help="Steps between checkpoints", metavar="INT", rich_help_panel=RUNNING)
    ] = 500,
    timeout: Timeout = None,
    retries: Retries = 0,
    canary: Canary = False,
    stop_after: StopAfter = None,
    steal: Annotated[
        bool,
        typer.Option(
            "--steal",
            help="Take over what stands claimed now, as by a lost machine; not from who is seen to live",
            rich_help_panel=RUNNING,
        ),
    ] = False,
    compile: Annotated[
        str,
        typer.Option(
            help="Compile networks: auto (where training takes 20 times as long as compiling), on or off",
            metavar="NAME",
            rich_help_panel=RUNNING,
        ),
    ] = "auto",
    confirm: Annotated[
        int | None,
        typer.Option(
            help="Run the best cell and the baseline again on so many fresh train seeds",
            metavar="INT",
            rich_help_panel=SEEDS,
        ),
    ] = None,
    confirm_metric: Annotated[
        str | None,
        typer.Option(help="What --confirm selects by; default the first", metavar="NAME", rich_help_panel=SEEDS),
    ] = None,
    tune: Tune = None,
    tune_seeds: TuneSeeds = None,
    until: Until = None,
    until_metric: UntilMetric = None,
    max_seeds: MaxSeeds = MOST,
    margin: Margin = None,
    budget: Budget = None,
    yes: Yes = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", help="Print the plan and an estimate; run nothing", rich_help_panel=RUNNING),
    ] = False,
    no_probe: Annotated[
        bool,
        typer.Option(
            "--no-probe",
            help="With --dry-run: build no network and time none, read no image whose hash is known; imports no torch",
            rich_help_panel=RUNNING,
        ),
    ] = False,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Train, sample, score and compare every cell of a grid. What is done is not done again."""
    from ddpmkit.cli.growing import next_command
    from ddpmkit.cli.plan import print_head, print_plan
    from ddpmkit.study.enter import working
    from ddpmkit.study.prepare import RunOptions, prepare
    from ddpmkit.study.study_name import NameTakenError
    from ddpmkit.study.until import seconds

    check(until, budget, until_metric, max_seeds, margin)
    given: Global = context.obj
    if no_probe and not dry_run:
        raise DdpmkitError(
            "--no-probe is of a dry run: what is run is tried first", "ddpmkit ablate --dry-run --no-probe"
        )
    settings = {
        "study": study, "recipe": recipe, "scale": scale,
        "schedules": schedules, "sigmas": sigmas, "weightings": weightings, "backbones": backbones,
        "samplers": samplers, "predictions": predictions, "guidances": guidances, "timesteps": timesteps,
        "timestep_sampling": timestep_sampling, "sampling_steps": sampling_steps,
        "axis": axis, "dataset": dataset, "train_steps": train_steps, "batch_size": batch_size,
        "learning_rate": learning_rate, "dropout": dropout, "conditional": conditional,
        "precision": precision, "samples": samples,
        "nll_evals": nll_evals, "nll_se": nll_se, "nll_full": nll_full, "train_seeds": train_seeds,
        "sample_seeds": sample_seeds, "metrics": metrics, "features": features,
        "preset": preset, "name": name, "zip": zip, "exclude": exclude, "only": only, "design": design,
        "baseline": baseline, "tune": tune, "tune_seeds": tune_seeds,
    }  # fmt: skip
    with ExitStack() as until_reported:
        try:
            prepared = prepare(
                settings,
                out=out,
                registry=given.registry(plugin),
                run_options=RunOptions(
                    jobs,
                    device,
                    executor,
                    checkpoint_every,
                    steal,
                    compile,
                    yes=yes,
                    per_device=per_device,
                    timeout=None if timeout is None else seconds(timeout, "--timeout"),
                    retries=retries,
                    canary=canary,
                    stop_after=stop_after,
                ),
                probe=not no_probe,
                starting=until is not None,
            )
            prepared = tuned(prepared, dry_run=dry_run, as_json=json)
            margins = check_names(prepared, until_metric, margin)
            if dry_run:
                print_plan(prepared, as_json=json, until=until is not None)
                if until:
                    print(f"then more train seeds where a verdict is open, at most {max_seeds} a cell", file=sys.stderr)
                return
            # --until enters by itself, once the budget is seen to be enough
            prepared = until_reported.enter_context(working(prepared, enters=until is None))
            print_head(prepared, until=until is not None)
            limits = None if until is None else (until_metric, max_seeds, budget)
            raise typer.Exit(_run(prepared, limits, margins, json=json, confirms=(confirm, confirm_metric)))
        except NameTakenError as taken:
            raise DdpmkitError(taken.message, next_command(context, taken, out, settings)) from None


def _run(
    prepared: Prepared,
    limits: tuple[str | None, int, str | None] | None,
    margins: dict[str, float] | None,
    *,
    json: bool,
    confirms: tuple[int | None, str | None],
) -> int:
    """Run a study that was entered, write and print its report, and return the exit code."""
    from ddpmkit.cli.confirm import run_confirmation
    from ddpmkit.cli.live import watch
    from ddpmkit.report.show.json import to_json
    from ddpmkit.report.show.terminal import to_terminal
    from ddpmkit.report.write import write_report
    from ddpmkit.study.runner import run
    from ddpmkit.study.walks import walks

    if limits is not None:
        metric, seeds, budget = limits
        ended = run_until(prepared, metric, seeds, margins, budget)
        prepared, outcome = ended.prepared, ended.outcome
    else:
        with watch(prepared) as tell:
            outcome = run(prepared, tell)
    stopped = outcome.code in (Exit.SIGINT, Exit.SIGTERM)  # who stopped the study does not wait for these pictures
    summary = write_report(outcome.folder, {} if stopped else walks(prepared), margin=margins)
    if json:
        print(to_json(summary), end="", file=data())
    else:
        with on_stdout():
            to_terminal(summary)
    figures = ", figures/" if (outcome.folder / "figures").is_dir() else ""
    again = f"wrote {outcome.folder}: report.html, report.md, report.tex, report.json, results.csv, card.md{figures}"
    if outcome.code:
        counts = ", ".join(f"{n} {state}" for state, n in outcome.states.items())
        if outcome.states.get("diverged"):
            again += "\nwhat diverged would diverge again: change a setting"
        again += f"\n{counts} of {len(prepared.plan.stages)} stages; the same command goes on from here"
    print(again, file=sys.stderr)
    fresh, by = confirms
    if fresh is not None and not outcome.code:
        return run_confirmation(prepared, summary, fresh, by, margins)
    return int(outcome.code)
