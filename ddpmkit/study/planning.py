"""What a kind of stage is planned from: a cell's components as objects, the data, and the stages planned so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ddpmkit.diffusion.classes import classes_of
from ddpmkit.diffusion.prior_term import prior_bits
from ddpmkit.diffusion.tables_for import (
    Array,
    Tables,
    decoder_log_variance,
    fixed_log_variance,
    log_bounds,
    tables_for,
)
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Backbone, Features, Images, Metric
from ddpmkit.plugin.registry import Registry
from ddpmkit.plugin.sources import reading
from ddpmkit.study.config import Cell, Study
from ddpmkit.study.identity import Identified, Identity, identified
from ddpmkit.study.impossible import Impossible, refuse_labels, refuse_pairs
from ddpmkit.study.settings import Settings
from ddpmkit.study.stage import Spec, Stage

if TYPE_CHECKING:
    from torch import nn

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Wanted:
    """A metric that a study asks for."""

    key: str  # its name in records
    metric: Metric
    identified: Identified


@dataclass(frozen=True)
class ChosenFeatures:
    """An extractor of a study, and which metrics are taken of its features."""

    text: str
    features: Features
    label: str
    fingerprint: str
    identified: Identified
    metrics: tuple[Wanted, ...]


@dataclass(frozen=True)
class Context:
    """What the stages of one plan have in common."""

    study: Study
    registry: Registry
    images: Images
    data: str  # the hash of the images and labels
    recipe: dict[str, Any]  # where they are
    rates: tuple[float, ...]  # of the averages that one training keeps
    extractors: tuple[ChosenFeatures, ...]
    second_moment: float
    changed_by: dict[str, str] | None  # enters every id
    networks: dict[tuple[Backbone, bool, int | None], Identified] = field(default_factory=dict)  # of plugins, as met
    heedless: dict[tuple[Backbone, bool], str | None] = field(default_factory=dict)  # why theirs can't have labels


@dataclass(frozen=True)
class Place:
    """A place in the grid, a cell or a seed of it, as the kinds of stage see it while they are planned.

    Attributes:
        cell: the cell.
        parts: its components.
        context: what all places share.
        train_seed: the seed of the training; of a cell as a whole there is none, and it is never read.
        sample_seed: the seed of the samples; the same.
        planned: the stages of this place and of those that hold it.
    """

    cell: Cell
    parts: Parts
    context: Context
    train_seed: int = -1
    sample_seed: int = -1
    planned: tuple[Stage[Any], ...] = ()

    @property
    def settings(self) -> Settings:
        """The cell's settings."""
        return self.cell.settings

    @property
    def classes(self) -> int | None:
        """The number of classes that the network is told; None where it is told none."""
        return classes(self.settings, self.context.images)

    def holding(self, stages: Iterable[Stage[Any]]) -> Place:
        """Return the place with more stages; a plan of ten thousand results asks for ninety thousand."""
        planned = (*self.planned, *stages)
        return Place(self.cell, self.parts, self.context, self.train_seed, self.sample_seed, planned)

    def all(self, kind: type[S]) -> list[Stage[S]]:
        """The stages of a kind that are planned here, in order."""
        return [s for s in self.planned if type(s.spec) is kind]  # isinstance asks an abstract class, at length

    def one(self, kind: type[S]) -> Stage[S]:
        """The one stage of a kind that is planned here."""
        (found,) = self.all(kind)
        return found

    def maybe(self, kind: type[S]) -> Stage[S] | None:
        """The stage of a kind that is planned here, if any is."""
        return next(iter(self.all(kind)), None)

    def stage(self, spec: S, label: str, work: float, *components: str, like: Stage[Any] | None = None) -> Stage[S]:
        """Make a stage of this place.

        Args:
            spec: What can change its output.
            label: What it is, for people; the place is named behind it.
            work: Its size in units of its kind.
            components: The cell's components that it builds.
            like: A stage whose data and components it needs as well.
        """
        records = {kind: self.parts.records[kind] for kind in components}
        return Stage(spec, {**(like.recipe if like else {}), **self.context.recipe, **records}, label, work)


@dataclass(frozen=True)
class Parts:
    """A cell's components as objects, checked against each other."""

    schedule: Any
    sigma: Any
    weighting: Any
    backbone: Any
    prediction: Any
    sampler: Any
    strided: Sequence[int]
    prior_bits: float
    decoder_fitted: bool
    noisy: bool  # whether a step of the walk can add noise at all
    identities: dict[str, Identity]  # what of each enters ids, a plugin's values included
    records: dict[str, dict[str, Any]]  # how to build each again

    @classmethod
    def build(cls, s: Settings, context: Context) -> Parts:
        """Build a cell's components.

        Raises:
            Impossible: when two of them do not go together, with the reason.
            DdpmkitError: when one can't be built, or breaks its contract.
        """
        registry = context.registry
        schedule, sigma, weighting, backbone, prediction, sampler = (
            registry.build(kind, getattr(s, kind))
            for kind in ("schedule", "sigma", "weighting", "backbone", "prediction", "sampler")
        )
        contract.takes(backbone, contract.image_size(context.images.train.shape), f"those of data set '{s.dataset}'")
        tables = tables_for(schedule, s.timesteps)
        varies = sigma.learned or sigma.fitted
        log_sigma2 = log_bounds(sigma, tables)[1] if varies else fixed_log_variance(sigma, tables)
        refuse_pairs(s, sigma, weighting)
        told = classes(s, context.images)
        refuse_labels(s, told)
        if told is not None and (why := _heedless(backbone, context, told, learned=sigma.learned)):
            raise Impossible(why)
        if why := contract.impossible(prediction, tables):
            raise Impossible(f"{why}; the schedule is {s.schedule}")
        log_sigma2 = log_sigma2.copy()
        log_sigma2[0] = decoder_log_variance(tables, "tilde2" if s.decoder_variance == "fitted" else s.decoder_variance)
        weights = contract.declared_weights(weighting, sigma, tables, log_sigma2)
        steps = contract.timesteps(sampler, s.timesteps, s.sampling_steps)
        strided = tables.strided(steps)
        kernel = contract.kernel(sampler, strided)
        found = {
            "schedule": identified(schedule, registry, tables.a, tables.b2, tables.prior_variance),
            "sigma": identified(sigma, registry, *log_bounds(sigma, tables)),
            "sigma of the walk": identified(sigma, registry, *log_bounds(sigma, strided)),
            "weighting": identified(weighting, registry, weights, contract.vlb_share(weighting, s.timesteps)),
            "prediction": identified(prediction, registry, _divisor(prediction, tables, registry)),
            "sampler": identified(sampler, registry, *kernel),
            "backbone": _identified_backbone(backbone, context, told, learned=sigma.learned),
        }
        return cls(
            schedule,
            sigma,
            weighting,
            backbone,
            prediction,
            sampler,
            steps,
            prior_bits(tables, context.second_moment),
            s.decoder_variance == "fitted",
            any(bool(np.any(v)) for v in kernel),
            {part: identity for part, (identity, _) in found.items()},
            {part: record for part, (_, record) in found.items()},
        )


def _divisor(prediction: Any, tables: Tables, registry: Registry) -> Array:
    """A plugin's prediction is held against what it says of itself; of the built-in ones tests do so."""
    ask = contract.divisor if registry.is_builtin(prediction) else contract.declared_divisor
    return ask(prediction, tables)


def _identified_backbone(backbone: Any, c: Context, told: int | None, *, learned: bool) -> Identified:
    """A plugin's network is built once without memory, to see which files it reads for that."""
    if c.registry.is_builtin(backbone):
        return identified(backbone, c.registry)
    if (backbone, learned, told) not in c.networks:  # many cells have the same one
        with reading() as paths:
            build_without_memory(backbone, c.images, learned=learned, classes=told)
        c.networks[backbone, learned, told] = identified(backbone, c.registry, files=paths)
    return c.networks[backbone, learned, told]


def _heedless(backbone: Any, c: Context, classes: int, *, learned: bool) -> str | None:
    """Why a plugin's network can't be trained with labels; None where it can. Of the built-in ones tests hold it."""
    if c.registry.is_builtin(backbone):
        return None
    if (backbone, learned) not in c.heedless:
        import torch

        with torch.random.fork_rng(devices=[]):
            net = network(backbone, c.images, learned=learned, classes=classes)
            shape = tuple(c.images.train.shape[1:])
            c.heedless[backbone, learned] = contract.why_no_labels(backbone, net, shape, classes)
    return c.heedless[backbone, learned]


def network_of(s: Settings) -> tuple[Any, ...]:
    """Return what of a cell shapes its network: cells that agree in it have one that is built alike."""
    return s.backbone, s.sigma, s.dropout, s.conditional


def classes(s: Settings, images: Images) -> int | None:
    """Return how many classes a cell's network is told, 0 where the data have none; None where it is told none."""
    if not s.conditional:
        return None
    return classes_of(images.labels)


def build_without_memory(backbone: Backbone, images: Images, *, learned: bool, classes: int | None = None) -> nn.Module:
    """Build a network on torch's meta device, or where it needs real numbers for that, as it is."""
    import torch

    try:
        with torch.device("meta"):
            return network(backbone, images, learned=learned, classes=classes)
    except DdpmkitError:
        return network(backbone, images, learned=learned, classes=classes)


def network(backbone: Backbone, images: Images, *, learned: bool, classes: int | None = None) -> nn.Module:
    """Build a network for the images; one that learns its variance has twice the channels at its end."""
    channels = images.train.shape[1]
    outputs, size = channels * (2 if learned else 1), contract.image_size(images.train.shape)
    return contract.network(backbone, in_channels=channels, out_channels=outputs, image_size=size, num_classes=classes)
