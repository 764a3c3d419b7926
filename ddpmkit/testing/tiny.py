"""A whole study with one component, as small as it gets: planned, trained, drawn, scored and bounded in seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Features, Sigma, Weighting, kind_of
from ddpmkit.plugin.registry import Registry

if TYPE_CHECKING:
    from ddpmkit.study.runner import Outcome

# Everything else of the study. Any schedule takes x0; one thread, one process, and images of noise.
SETTINGS: dict[str, Any] = {
    "schedule": "cosine", "sigma": "beta-tilde", "weighting": "simple", "backbone": "unet:channels=4:mults=1",
    "sampler": "ancestral", "prediction": "x0", "timesteps": 40, "sampling_steps": 4, "train_steps": 3, "warmup": 1,
    "batch_size": 8, "samples": 16, "eval_batch": 16, "nll_evals": 16, "fit_images": 4, "timestep_sampling": "uniform",
    "train_seeds": "0", "sample_seeds": "0", "features": "pca:k=2", "metrics": "fd,nll",
}  # fmt: skip
IMAGES = (1, 8, 8), 17  # shape and grey levels, as the digits have them
COUNTS = 120, 40  # training images and test images


def tiny_study(component: Any, out: str | Path) -> Outcome:
    """Run a whole study in which one component takes part, to its results but no report, and return how it ended.

    In one's own tests: ``tiny_study(MySchedule(k=3), tmp_path).results()``, a data frame with a row a number.

    Args:
        component: An object of one of the kinds. Where its plugin is not installed, its module is loaded as by ``-p``.
        out: The results folder, an empty one.

    Raises:
        DdpmkitError: when it is no component, the study can't be planned with it, or a stage of the study fails.
    """
    from ddpmkit.report.read.frames import read_study
    from ddpmkit.report.show.csv import to_tidy
    from ddpmkit.study.prepare import RunOptions, prepare
    from ddpmkit.study.runner import run
    from ddpmkit.study.status import read_status

    kind = kind_of(type(component))
    if kind is None:
        raise DdpmkitError(
            f"{type(component).__name__} is no component", "give an object of one of the kinds, as MySchedule()"
        )
    registry = _registry(kind.name, component)
    called = ":".join((registry.called(component), *str(component).split(":")[1:]))
    given = {**SETTINGS, "dataset": _images(component, Path(out), registry), **_beside(component)}
    if kind.name == "metric":
        given["metrics"] += f",{called}"
    elif kind.name != "executor":
        given[kind.name] = called
    options = RunOptions(1, "cpu", called if kind.name == "executor" else "inline", compile="off")
    outcome = run(prepare(given, out=Path(out), registry=registry, run_options=options))
    if outcome.code:
        problems = read_status(outcome.folder)["problems"]
        why = "; ".join(f"{p['label']}: {p['error']}" for p in problems) or f"its stages are {outcome.states}"
        raise DdpmkitError(f"a tiny study with {kind.name} '{component}' failed: {why}", f"ddpmkit check {called}")
    (outcome.folder / "results.csv").write_text(to_tidy(read_study(outcome.folder)), encoding="utf-8")
    return outcome


def _registry(kind: str, component: Any) -> Registry:
    """A registry that knows the component: as it is installed, or with its module as after ``-p``."""
    cls = type(component)
    known = Registry(quiet=True)
    if any(e.cls is cls for e in known.builtin(kind)) or any(e.cls is cls for e in known.entries()):
        return known
    module = sys.modules[cls.__module__]
    as_file = cls.__module__.startswith("ddpmkit_p_")  # what -p FILE.py made of a file
    return Registry([str(module.__file__) if as_file else cls.__module__], quiet=True)


def _beside(component: Any) -> dict[str, Any]:
    """What a component can't do without: a learned variance is taught by a loss that holds it, and the other way."""
    if isinstance(component, Sigma) and component.learned:
        return {"weighting": "hybrid"}
    if isinstance(component, Weighting) and component.vlb_share(SETTINGS["timesteps"]):
        return {"sigma": "learned-range"}
    return {}


def _images(component: Any, out: Path, registry: Registry) -> str:
    """Write noise of the shape that the component was made for, and return it as a data set's spec."""
    import numpy as np

    shape, levels = (component.made_for if isinstance(component, Features) else None) or IMAGES
    rng = np.random.default_rng(0)
    path = (out / "tiny.npz").resolve()
    axes = shape[1:] if shape[0] == 1 else shape  # two need no telling apart
    train, test = (rng.integers(0, levels, (n, *axes), dtype=np.uint8) for n in COUNTS)
    files.write_bytes(path, files.pack_npz({"train_images": train, "test_images": test}))
    npz = registry.find("dataset", "npz").cls
    return str(npz(path=str(path), levels=levels, validation=20))
