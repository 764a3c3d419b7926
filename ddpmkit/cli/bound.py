"""``likelihood``: the bound on the negative log-likelihood of one trained network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ddpmkit.cli.options import Global, Json, Out, Plugins
from ddpmkit.cli.streams import data


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(likelihood)


def likelihood(
    context: typer.Context,
    training: Annotated[str, typer.Argument(help="A training in the store: its id, or the start of it; results.csv")],
    sigma: Annotated[
        str | None, typer.Option(help="The reverse variance; default: the one it learned, or else beta-tilde")
    ] = None,
    split: Annotated[str, typer.Option(help="test or train")] = "test",
    nll_evals: Annotated[int, typer.Option(min=16, help="Network evaluations for the middle sum")] = 8192,
    nll_se: Annotated[float | None, typer.Option(help="Standard error to reach, bits/dim, instead")] = None,
    nll_full: Annotated[bool, typer.Option("--nll-full", help="Every image at every step, instead")] = False,
    decoder: Annotated[str, typer.Option(help="cdf, cdf-tanh, softmax or continuous")] = "cdf",
    decoder_variance: Annotated[str, typer.Option(help="tilde2 or beta1")] = "tilde2",
    ema: Annotated[float | None, typer.Option(help="Rate of the average, where the training kept several")] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="K steps of a strided chain; default: all")] = None,
    ode: Annotated[
        int,
        typer.Option(min=0, help="The probability-flow ODE's likelihood too, of so many images; 9 s for each 8x8 one"),
    ] = 0,
    out: Out = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Bound the negative log-likelihood of one training.

    In bits/dim, with its Monte-Carlo error, the error that the choice of the test images leaves, and its terms.
    """
    import json as json_module

    from rich.progress import Progress

    from ddpmkit.cli.console import print_rows, stderr_console
    from ddpmkit.study.bound_training import BoundRequest, bound_training
    from ddpmkit.study.store import Store

    global_options: Global = context.obj
    registry = global_options.registry(plugin)
    request = BoundRequest(
        sigma=sigma, split=split, evals=nll_evals, se=nll_se, full=nll_full, decoder=decoder,
        decoder_variance=decoder_variance, steps=steps, ema=ema, ode=ode,
    )  # fmt: skip
    console = stderr_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("likelihood", total=1.0)
        record = bound_training(
            Store(out),
            registry,
            training,
            request,
            device=device,
            on_progress=lambda f: bar.update(task, completed=f),
        )
    if json:
        print(json_module.dumps(record, indent=1, allow_nan=False), file=data())
        return
    rows = []
    for name in ("clipped", "unclipped"):
        b = record[name]
        error, test = ("not resolved" if b[k] is None else f"{b[k]:.4f}" for k in ("standard_error", "test_set_error"))
        terms = (f"{b[k]:.4f}" for k in ("prior", "middle", "decoder"))
        rows.append((name, f"{b['total']:.4f}", error, test, *terms))
    heads = ("x0hat", "bits/dim", "Monte-Carlo se", "test-set se", "L_T", "sum L_t-1", "L_0")
    name = "NLL given the class" if record["given"] else "NLL"
    print_rows(f"{name}, {record['label']}", heads, rows)
    flow = record.get("probability_flow")
    if flow is not None:
        columns = ("bits/dim", "test-set se", "step error", "images", "divergence", "evaluations")
        values = (flow[k] for k in ("total", "test_set_error", "step_error"))
        numbers = ("" if v is None else f"{v:.4f}" for v in values)
        row = (*numbers, str(flow["images"]), flow["divergence"], f"{flow['evaluations']:,}")
        print_rows("probability-flow ODE; another number than the bound", columns, [row])
    chain = (
        f"all {record['T']} steps" if record["steps"] == record["T"] else f"{record['steps']} of {record['T']} steps"
    )
    print(
        f"{name} of {record['images']} images of split {record['split']}, {chain}, EMA {record['ema']}, sigma "
        f"{record['sigma']}, decoder {record['decoder']} with variance {record['decoder_variance']}; "
        f"{record['evaluations']:,} network evaluations, a full sweep takes {record['full_sweep']:,}",
        file=sys.stderr,
    )
