"""ddpmkit: which DDPM design choice is better, by how much, and can you believe it?

Plugin authors need nothing deeper than this module, and importing it loads neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.execution import Emit, Job, Pool, ShouldStop, Task
from ddpmkit.plugin.hookspecs import hookimpl
from ddpmkit.plugin.interfaces import (
    Backbone,
    Dataset,
    Executor,
    Features,
    Images,
    Sampler,
    Schedule,
    Sigma,
    Weighting,
)
from ddpmkit.plugin.spec import param

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from ddpmkit.study.runner import Outcome

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "Dataset",
    "DdpmkitError",
    "Emit",
    "Executor",
    "Features",
    "Images",
    "Job",
    "Pool",
    "Sampler",
    "Schedule",
    "ShouldStop",
    "Sigma",
    "Task",
    "Weighting",
    "ablate",
    "build",
    "hookimpl",
    "load_results",
    "param",
    "run_one",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def build(kind: str, text: str, *, plugins: Iterable[str] = ()) -> Any:
    """Build a component from spec text: ``build("schedule", "cosine:s=0.01").betas(1000)``.

    Args:
        kind: One of schedule, sigma, weighting, backbone, sampler, dataset, features, executor.
        text: ``name`` or ``name:key=value:key=value``.
        plugins: What ``-p`` takes on the command line: modules, ``.py`` files, ``no:NAME``.

    Raises:
        DdpmkitError: for an unknown kind, name or parameter, or a bad value.
    """
    from ddpmkit.plugin.registry import Registry

    return Registry(plugins).build(kind, text)


def ablate(
    *,
    out: str | Path = "results",
    plugins: Iterable[str] = (),
    jobs: int | None = None,
    device: str = "auto",
    executor: str = "local",
    checkpoint_every: int = 500,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> Outcome:
    """Run a study, as ``ddpmkit ablate`` does; the keywords are the flags with underscores.

    ``ablate(schedules=["linear", "cosine"], train_seeds=[0, 1, 2])``. Lists and comma text are both understood.
    Returns the outcome: the study's folder, the number of stages in each state, ``.results()`` as a data frame. The
    folder holds results.csv, the report and the figures.

    Args:
        out: The results folder.
        plugins: What ``-p`` takes on the command line.
        jobs: Workers at once; by default one a CPU core, or one a GPU.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        executor: Spec of the executor; ``inline`` runs everything in this process.
        checkpoint_every: Steps between two checkpoints of a training.
        on_event: Told everything that happens; by default a line now and then goes to stderr.
        options: Any setting, axis, ``train_seeds``, ``sample_seeds``, ``metrics``, ``features``, ``preset``, ``name``.

    Raises:
        DdpmkitError: when the request is wrong; nothing has run then.
    """
    from ddpmkit.plugin.registry import Registry
    from ddpmkit.report.write import write_report
    from ddpmkit.study.progress import Monitor, PlainLines
    from ddpmkit.study.runner import How, prepare, run
    from ddpmkit.study.strips import write_strips

    how = How(jobs, device, executor, checkpoint_every)
    prepared = prepare(options, out=out, registry=Registry(plugins), how=how)
    outcome = run(prepared, on_event or PlainLines(Monitor(prepared)))
    write_strips(prepared)
    write_report(outcome.folder)
    return outcome


def run_one(
    job: Job,
    task: Task,
    emit: Emit = lambda _: None,
    should_stop: ShouldStop = lambda: False,
    *,
    device: str | None = None,
) -> str:
    """Run a stage in this process, for executors; return its state: done, failed, diverged or interrupted.

    Args:
        job: What it is a part of.
        task: The stage.
        emit: Told how far it is.
        should_stop: Asked at every step.
        device: Where it runs; the job's first device by default.

    Raises:
        DdpmkitError: when the task is another ddpmkit's, or a plugin of the job is not here.
    """
    from ddpmkit.study.one import run_one as run

    return run(job, task, emit, should_stop, device=device)


def load_results(path: str | Path) -> pd.DataFrame:
    """Read a study's tidy results, one row per (cell, train seed, sample seed, metric).

    Args:
        path: A study folder, or a ``results.csv``.

    Raises:
        DdpmkitError: when there are no results at that path.
    """
    from ddpmkit.report.frames import load_results as load

    return load(path)
