"""How long until a fixed NLL and a fixed FD are reached? A training that is looked at now and then, and a clock.

The targets are fixed here, and the recipe is a file that anybody may edit. Training is timed; looking at it is not.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError, Diverged, Interrupted
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.prepare import Prepared, RunOptions, prepare
from ddpmkit.study.recipe import LOOK, recipe_file
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.values import read_toml
from ddpmkit.study.work import Work

if TYPE_CHECKING:
    from ddpmkit.distances import Reference
    from ddpmkit.study.trained import Trained

SEEDS = {"train_seeds", "sample_seeds"}


@dataclass(frozen=True)
class Target:
    """What is to be reached on which images; with another number it is another target, and its times are others.

    Attributes:
        name: of the record.
        dataset: the data, unless the user says where they are.
        features: the extractor of the distance.
        reference: SHA-256 of the test images; other data are another record.
        nll: bound on the NLL of the test images to reach, bits/dim, as the study's column has it.
        fd: Frechet distance without its 1/N bias to reach.
        samples: images that are drawn for it.
        evals: network evaluations for the bound's middle sum.
    """

    name: str
    dataset: str | None
    features: str
    reference: str
    nll: float
    fd: float
    samples: int = 1000
    evals: int = 8192

    @property
    def says(self) -> dict[str, Any]:
        """The settings of a study that are the target's, and no recipe's."""
        told = {"features": self.features, "samples": self.samples, "nll_evals": self.evals, "metrics": "fd,nll"}
        return {"dataset": self.dataset, **told}


TARGETS = {
    t.name: t
    for t in (
        # All three seeds of the committed study's sigmoid cell get there: NLL 2.73 to 2.79, debiased FD 2.7 to 4.8.
        Target(
            "digits", "digits", "digits", "731b1568d5d0c334bdc63cb1eb82fadc5128dca008d6d83db329bb357fda2f9a", 2.85, 6.0
        ),
        # Below what a model without a network gives, the per-pixel categorical: 1.689 bits/dim. Real images: FD 0.7.
        Target("mnist", None, "mnist", "f16207c82656101ab52993cc4f6bc3ea7c19b0ad4c8d25b8866fc0e2ba82421b", 1.65, 25.0),
    )
}


@dataclass(frozen=True)
class Look:
    """What one look found, and how long the training had taken by then."""

    step: int
    cpu_seconds: float
    wall_seconds: float
    nll: float
    nll_se: float | None
    fd: float
    fd_se: float | None


def read_recipe(target: Target, path: Path | None = None) -> dict[str, Any]:
    """Read a recipe, by default the target's own.

    Raises:
        DdpmkitError: when it can't be read, says what the target says, or has no number of steps between looks.
    """
    recipe = read_toml(recipe_file(target.name) if path is None else path)
    for key in recipe:
        if key in target.says or key in SEEDS or key == "reference_split":
            raise DdpmkitError(
                f"the recipe sets '{key}', which is fixed by the target", f"ddpmkit bench {target.name} --print-recipe"
            )
    every = recipe.get(LOOK)
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise DdpmkitError(f"the recipe's {LOOK} is {every!r}, and no number of steps", f"{LOOK} = 200")
    return recipe


def race(
    target: Target,
    recipe: Mapping[str, Any],
    *,
    dataset: str | None = None,
    seed: int = 0,
    device: str = "auto",
    registry: Registry | None = None,
    on_look: Callable[[Look], None] = lambda _: None,
) -> dict[str, Any]:
    """Train by a recipe until both targets are reached, or the recipe is over; return the record as JSON values.

    Args:
        target: What to reach.
        recipe: Settings, from :func:`read_recipe`.
        dataset: Where the data are, where the target does not say.
        seed: The train seed.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        registry: The components to choose from.
        on_look: Told of each look.

    Raises:
        DdpmkitError: when the recipe is no training, or the data are others than the target's.
        Diverged: when the training does.
    """
    from ddpmkit import device as devices

    where = dataset or target.dataset
    if where is None:
        raise DdpmkitError(
            f"bench {target.name} needs the images", f"ddpmkit bench {target.name} --dataset idx:path=FOLDER"
        )
    registry = registry or Registry()
    settings = {k: v for k, v in recipe.items() if k != LOOK}
    looks: list[Look] = []
    with tempfile.TemporaryDirectory() as out, devices.one_thread():
        asked = {**settings, **target.says, "dataset": where, "train_seeds": str(seed), "sample_seeds": "0"}
        prepared = prepare(asked, out=out, registry=registry, run_options=RunOptions(device=device))
        if len(prepared.plan.results) != 1:
            raise DdpmkitError("a recipe is one training, and this one has axes", "give each setting one value")
        reference = _reference(target, prepared)
        with devices.reproducible(devices.resolve(device)):
            for step, cpu, wall, trained in _trained(prepared, device, recipe[LOOK]):
                look = Look(step, cpu, wall, *_nll(prepared, trained, target), *_fd(prepared, trained, reference))
                looks.append(look)
                on_look(look)
                if reached(target, looks).keys() >= {"nll", "fd"}:
                    break
        return {
            "bench": target.name,
            "target": {"nll": target.nll, "fd": target.fd, "samples": target.samples, "evals": target.evals},
            "reached": {name: asdict(look) for name, look in reached(target, looks).items()},
            "looks": [asdict(look) for look in looks],
            "recipe": dict(recipe),
            "seed": seed,
            "fingerprint": devices.fingerprint(devices.resolve(device)),
        }


def reached(target: Target, looks: list[Look]) -> dict[str, Look]:
    """Return the first look at which each target was reached, ``nll`` and ``fd``; none where it never was."""
    wanted = {"nll": target.nll, "fd": target.fd}
    first = {name: next((k for k in looks if getattr(k, name) <= most), None) for name, most in wanted.items()}
    return {name: look for name, look in first.items() if look is not None}


def _reference(target: Target, prepared: Prepared) -> Reference:
    """The test images' features; refuses other images."""
    from ddpmkit.distances import prepare as held

    made = held(prepared.plan.images, prepared.registry.build("features", target.features), metrics=["fd"])
    if made.protocol["reference"] != target.reference:
        told = f"{made.protocol['reference'][:8]}, not {target.reference[:8]}"
        raise DdpmkitError(f"these are not the test images of bench {target.name}: {told}", "its times are of those")
    return made


def _trained(prepared: Prepared, device: str, every: int) -> Any:
    """Train, and stop at every look: yields (step, CPU seconds, wall seconds, network); the clocks stand meanwhile."""
    from ddpmkit import device as devices

    stage = prepared.plan.stages[prepared.plan.results[0].train]  # alone, without the trunk that it would branch off
    step, seen, cpu, wall = 0, 0, 0.0, 0.0

    def emit(event: dict[str, Any]) -> None:
        nonlocal step
        step = event.get("step", step)

    options = StageOptions(device, checkpoint_every=2**62, checkpoint_seconds=math.inf, log_every=every)
    where = devices.resolve(device)
    work = Work(stage, prepared.store, prepared.registry, options, where, emit, lambda: step > seen)
    work.folder.mkdir(parents=True)
    while seen < stage.spec.steps:
        cpu0, wall0 = time.process_time(), time.perf_counter()
        with contextlib.suppress(Interrupted):  # by ourselves, with a checkpoint of that step
            stage.spec.run(work)
        cpu, wall, seen = cpu + time.process_time() - cpu0, wall + time.perf_counter() - wall0, step
        yield seen, cpu, wall, _network(prepared, work)


def _network(prepared: Prepared, work: Work) -> Trained:
    """The average's weights as the last checkpoint has them."""
    from ddpmkit import device as devices
    from ddpmkit.study.planning import network
    from ddpmkit.study.trained import Trained
    from ddpmkit.training import checkpoint

    spec, images, settings = work.stage.spec, prepared.plan.images, prepared.plan.cells[0].settings
    sigma, classes = prepared.registry.build("sigma", settings.sigma), work.stage.spec.classes(images)
    if sigma.fitted:
        raise DdpmkitError(f"sigma '{sigma.name}' is fitted in a study", "use beta-tilde, or a learned one")
    found = checkpoint.newest(work.folder / "ckpt")
    if found is None:
        raise DdpmkitError("the training left no checkpoint", "try again")
    net = network(work.component("backbone"), images, learned=sigma.learned, classes=classes)
    net.load_state_dict(checkpoint.under(found.ema, repr(settings.ema)))
    net = devices.place(net, work.device).eval()
    tables = spec.tables(work.component("schedule"))
    prediction = spec.predicts(work.stage.recipe, work.registry, tables)
    return Trained(work.stage.id, spec, images, net, tables, sigma, prediction, work.device, classes)


def _nll(prepared: Prepared, trained: Trained, target: Target) -> tuple[float, float | None]:
    """The bound on the NLL of the test images, bits/dim, and its Monte-Carlo error."""
    from ddpmkit.diffusion.reverse_variance import log_variance
    from ddpmkit.diffusion.tables_for import decoder_log_variance
    from ddpmkit.study.stages.draw import answers
    from ddpmkit.study.stages.nll import bounds, reported

    settings, tables, sigma = prepared.plan.cells[0].settings, trained.tables, trained.sigma
    draws, _ = answers(
        trained,
        tables,
        "test",
        evals=target.evals,
        seed=trained.spec.seed,
        batch=settings.eval_batch,
        precision=settings.eval_precision,
    )
    log_sigma2 = None if sigma.learned else log_variance(sigma, tables)
    decoder = None if sigma.learned else decoder_log_variance(tables, settings.decoder_variance)
    clipped, unclipped = bounds(draws, tables, log_sigma2, decoder, "cdf", trained.images.levels)
    found = clipped if reported(tables) == "clipped" else unclipped
    if not math.isfinite(found.total):
        raise Diverged("the bound is not finite")
    return found.total, found.standard_error


def _fd(prepared: Prepared, trained: Trained, reference: Reference) -> tuple[float, float | None]:
    """The debiased distance of samples, and its standard error."""
    from ddpmkit.distances import score

    (stage,) = (s for s in prepared.plan.stages.values() if isinstance(s.spec, Sample))
    spec, sampler = stage.spec, prepared.registry.rebuild(stage.recipe["sampler"])
    drawn, _ = spec.draw(trained, sampler, None, label_of=spec.label_of(trained))
    found = score(drawn.numpy(), reference, metrics=["fd"]).get("fd-debiased")
    if found is None:
        raise DdpmkitError(f"{spec.count} samples are too few for a debiased distance", "the target says how many")
    return found.value, found.se
