"""ddpmkit: which DDPM design choice is better, by how much, and can you believe it?

Plugin authors need nothing deeper than this module, and importing it loads neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from ddpmkit.damage import DAMAGE
    from ddpmkit.diffusion.alpha_bars import betas_from_alpha_bars
    from ddpmkit.diffusion.clipping import Clip, clipped
    from ddpmkit.diffusion.endpoints import scaled_endpoints
    from ddpmkit.diffusion.spacing import SPACING_HELP, Spacing, spaced
    from ddpmkit.diffusion.tables_for import tables_for
    from ddpmkit.distances.copies import copy_check, no_copy_check
    from ddpmkit.distances.folder import Colour, read_image_files
    from ddpmkit.distances.frechet_error import debiased_frechet
    from ddpmkit.distances.kernel import kernel_distance
    from ddpmkit.distances.layout import channels_first
    from ddpmkit.distances.listing import folder_stamp, image_files, is_visible
    from ddpmkit.distances.neighbours import neighbour_metrics, no_neighbours
    from ddpmkit.distances.resize import Resize
    from ddpmkit.distances.sliced import sliced_wasserstein
    from ddpmkit.distances.two_sample import no_two_sample_test, two_sample_test
    from ddpmkit.errors import DdpmkitError
    from ddpmkit.kernels.group_norm import group_norm_silu
    from ddpmkit.pixels import quantise, to_pixels
    from ddpmkit.places import MOST_READ, file_stamp, names_in, unread, what_is_at
    from ddpmkit.plugin.api import PLUGIN_API
    from ddpmkit.plugin.contract import event_problem
    from ddpmkit.plugin.execution import Emit, Event, Job, Pool, ShouldStop, Task
    from ddpmkit.plugin.hookspecs import hookimpl
    from ddpmkit.plugin.interfaces import (
        SPLITS,
        Array,
        Backbone,
        Dataset,
        Denoise,
        Denoised,
        Executor,
        Factors,
        Features,
        Images,
        ImageSize,
        Levels,
        Measurement,
        Metric,
        Noise,
        Outline,
        Prediction,
        Sampler,
        Schedule,
        Sets,
        Sigma,
        Weighting,
    )
    from ddpmkit.plugin.parameters import param
    from ddpmkit.plugin.tables import Tables
    from ddpmkit.study.loaded import load
    from ddpmkit.study.one import run_one, with_components
    from ddpmkit.study.prepare import Prepared
    from ddpmkit.study.runner import Outcome
    from ddpmkit.text import inert

__version__ = "0.1.0"

__all__ = [
    "DAMAGE",
    "MOST_READ",
    "PLUGIN_API",
    "SPACING_HELP",
    "SPLITS",
    "Array",
    "Backbone",
    "Clip",
    "Colour",
    "Dataset",
    "DdpmkitError",
    "Denoise",
    "Denoised",
    "Emit",
    "Event",
    "Executor",
    "Factors",
    "Features",
    "ImageSize",
    "Images",
    "Job",
    "Levels",
    "Measurement",
    "Metric",
    "Noise",
    "Outline",
    "Pool",
    "Prediction",
    "Resize",
    "Sampler",
    "Schedule",
    "Sets",
    "ShouldStop",
    "Sigma",
    "Spacing",
    "Tables",
    "Task",
    "Weighting",
    "ablate",
    "betas_from_alpha_bars",
    "build",
    "channels_first",
    "clipped",
    "copy_check",
    "debiased_frechet",
    "event_problem",
    "file_stamp",
    "folder_stamp",
    "group_norm_silu",
    "hookimpl",
    "image_files",
    "inert",
    "is_visible",
    "kernel_distance",
    "load",
    "load_results",
    "names_in",
    "neighbour_metrics",
    "no_copy_check",
    "no_neighbours",
    "no_two_sample_test",
    "param",
    "quantise",
    "read_image_files",
    "run_one",
    "scaled_endpoints",
    "sliced_wasserstein",
    "spaced",
    "tables_for",
    "to_pixels",
    "two_sample_test",
    "unread",
    "what_is_at",
    "with_components",
]

# Loaded when first asked for: a command's help needs none of them, and some load numpy or torch.
_WHERE = {  # and what is not named here, the kinds and what they are given, in plugin/interfaces.py
    "DdpmkitError": "ddpmkit.errors",
    **dict.fromkeys(["MOST_READ", "file_stamp", "names_in", "unread", "what_is_at"], "ddpmkit.places"),
    **dict.fromkeys(["Emit", "Event", "Job", "Pool", "ShouldStop", "Task"], "ddpmkit.plugin.execution"),
    "PLUGIN_API": "ddpmkit.plugin.api",
    "hookimpl": "ddpmkit.plugin.hookspecs",
    "param": "ddpmkit.plugin.parameters",
    "Tables": "ddpmkit.plugin.tables",
    "inert": "ddpmkit.text",
    "DAMAGE": "ddpmkit.damage",
    "betas_from_alpha_bars": "ddpmkit.diffusion.alpha_bars",
    "Clip": "ddpmkit.diffusion.clipping",
    "clipped": "ddpmkit.diffusion.clipping",
    "scaled_endpoints": "ddpmkit.diffusion.endpoints",
    "SPACING_HELP": "ddpmkit.diffusion.spacing",
    "Spacing": "ddpmkit.diffusion.spacing",
    "spaced": "ddpmkit.diffusion.spacing",
    "tables_for": "ddpmkit.diffusion.tables_for",
    "copy_check": "ddpmkit.distances.copies",
    "no_copy_check": "ddpmkit.distances.copies",
    "Colour": "ddpmkit.distances.folder",
    "folder_stamp": "ddpmkit.distances.listing",
    "image_files": "ddpmkit.distances.listing",
    "is_visible": "ddpmkit.distances.listing",
    "read_image_files": "ddpmkit.distances.folder",
    "Resize": "ddpmkit.distances.resize",
    "debiased_frechet": "ddpmkit.distances.frechet_error",
    "kernel_distance": "ddpmkit.distances.kernel",
    "channels_first": "ddpmkit.distances.layout",
    "neighbour_metrics": "ddpmkit.distances.neighbours",
    "no_neighbours": "ddpmkit.distances.neighbours",
    "sliced_wasserstein": "ddpmkit.distances.sliced",
    "no_two_sample_test": "ddpmkit.distances.two_sample",
    "two_sample_test": "ddpmkit.distances.two_sample",
    "group_norm_silu": "ddpmkit.kernels.group_norm",
    "quantise": "ddpmkit.pixels",
    "to_pixels": "ddpmkit.pixels",
    "load": "ddpmkit.study.loaded",
    "run_one": "ddpmkit.study.one",
    "with_components": "ddpmkit.study.one",
    "event_problem": "ddpmkit.plugin.contract",
}

if not TYPE_CHECKING:  # a type checker sees the imports above, and that there is nothing else

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'ddpmkit' has no attribute '{name}'")
        globals()[name] = value = getattr(importlib.import_module(_WHERE.get(name, "ddpmkit.plugin.interfaces")), name)
        return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def build(kind: str, text: str, *, plugins: Iterable[str] = ()) -> Any:
    """Build a component from spec text: ``build("schedule", "cosine:s=0.01").betas(1000)``.

    Args:
        kind: One of schedule, sigma, weighting, backbone, prediction, sampler, dataset, features, metric, executor.
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
    steal: bool = False,
    compile: str = "auto",
    yes: bool = False,
    timeout: float | None = None,
    retries: int = 0,
    canary: bool = False,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> Outcome:
    """Run a study, as ``ddpmkit ablate`` does; the keywords are the flags with underscores.

    ``ablate(schedules=["linear", "cosine"], train_seeds=[0, 1, 2])``. Lists and comma text are both understood. Returns
    the outcome: the study's folder, the number of stages in each state, ``.results()`` as a data frame.

    Args:
        out: The results folder.
        plugins: What ``-p`` takes on the command line.
        jobs: Workers at once; by default one a CPU core, or one a GPU.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        executor: Spec of the executor; ``inline`` runs everything in this process.
        checkpoint_every: Steps between two checkpoints of a training.
        steal: Take over what is claimed now by processes that are not seen to live, as of a lost machine.
        compile: Whether networks are compiled: ``auto`` where that pays, ``on`` or ``off``; the fingerprint says which.
        yes: Run more than 10,000 results too.
        timeout: Seconds that one attempt at a stage may take.
        retries: How often a stage that failed is tried again.
        canary: Run one cell first, and the others only if it ends well.
        on_event: Told everything that happens; by default a line now and then goes to stderr.
        options: Any setting, axis, or other key of a study's file (docs/commands.md); ``study`` is one that is there,
            by name, or a .toml file, which the others override and add to.

    Raises:
        DdpmkitError: when the request is wrong; nothing has run then.
    """
    from ddpmkit.plugin.registry import Registry
    from ddpmkit.report.write import write_report
    from ddpmkit.study.enter import working
    from ddpmkit.study.prepare import RunOptions, prepare
    from ddpmkit.study.progress import Monitor, PlainLines
    from ddpmkit.study.runner import run
    from ddpmkit.study.tuning import tuned
    from ddpmkit.study.walks import walks

    faults: dict[str, Any] = {"yes": yes, "timeout": timeout, "retries": retries, "canary": canary}
    run_options = RunOptions(jobs, device, executor, checkpoint_every, steal, compile, **faults)

    def runs(planned: Prepared) -> Outcome:
        return run(planned, on_event or PlainLines(Monitor(planned)))

    planned = prepare(options, out=out, registry=Registry(plugins), run_options=run_options)
    with working(tuned(planned, lambda trials: write_report(runs(trials).folder))) as prepared:
        outcome = runs(prepared)
        write_report(outcome.folder, walks(prepared))
    return outcome


def load_results(path: str | Path) -> pd.DataFrame:
    """Read a study's tidy results, one row per (cell, train seed, sample seed, metric).

    Args:
        path: A study folder, or a ``results.csv``.

    Raises:
        DdpmkitError: when there are no results at that path.
    """
    from ddpmkit.report.read.frames import load_results as load

    return load(path)
