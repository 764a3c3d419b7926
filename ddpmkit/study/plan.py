"""From a grid to stages: each named by the hash of all that can change its output, and shared where that agrees."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit import files
from ddpmkit.diffusion.tables import (
    decoder_log_variance,
    fixed_log_variance,
    log_bounds,
    prior_bits,
    tables_for,
)
from ddpmkit.errors import DdpmkitError
from ddpmkit.evaluation.feasible import why_not
from ddpmkit.images import sliver
from ddpmkit.plugin import changes, contract
from ddpmkit.plugin.interfaces import Backbone, Images
from ddpmkit.plugin.loader import BUILTIN
from ddpmkit.plugin.registry import Registry
from ddpmkit.plugin.sources import reading
from ddpmkit.study.config import FIELDS, IMAGE_METRICS, SAMPLE_METRICS, Cell, Settings, Study
from ddpmkit.study.identity import Identified, identified
from ddpmkit.study.warmup import warmup_warning

if TYPE_CHECKING:
    from torch import nn

# Raise a number when the same spec comes to mean other results.
VERSIONS = {"ref": 3, "train": 2, "fit": 2, "sample": 2, "draw": 2, "nll": 4, "score": 3}
# A field that is added to a spec later stands here with the value that means how it was before the field existed. It
# enters an id only where it differs from that, and the value here never changes again, whatever becomes of defaults.
AS_BEFORE: dict[str, dict[str, Any]] = {kind: {} for kind in VERSIONS}
# Axes that no training sees: cells that differ in these alone share theirs, and it is not named after one of them.
AFTER_TRAINING = (
    "sampler", "sampling_steps", "samples", "ema", "eval_batch", "eval_precision", "reference_split",
    "nll_evals", "nll_se", "nll_full",
    "decoder_variance", "fit_images",
)  # fmt: skip
SIGNAL_LEFT = 0.01  # bits/dim of L_T above which a schedule is warned about


class Impossible(Exception):  # noqa: N818 - a property of a cell, not a defect
    """A cell that can't exist; its text is the reason."""


@dataclass(frozen=True)
class Stage:
    """One unit of work.

    Attributes:
        kind: ref, train, fit, sample, draw, nll or score.
        spec: what can change the output, without what is :data:`AS_BEFORE`; its hash is the id.
        needs: (kind, id) of the stages whose output it reads.
        how: how to find the same things again here, a path or a plugin's version; never hashed.
        label: for people.
        work: size in units of its kind, for estimates of time.
    """

    kind: str
    spec: dict[str, Any]
    needs: tuple[tuple[str, str], ...]
    how: dict[str, Any]
    label: str
    work: float

    @functools.cached_property
    def id(self) -> str:
        """SHA-256 of the canonical JSON of kind, version and spec."""
        return files.sha256(files.canonical(self.named).encode())

    @property
    def named(self) -> dict[str, Any]:
        """What the id is the hash of: the content of ``spec.json``."""
        return {"kind": self.kind, "version": VERSIONS[self.kind], "spec": self.spec}

    @property
    def full(self) -> dict[str, Any]:
        """The spec with all its fields."""
        return {**AS_BEFORE[self.kind], **self.spec}

    @classmethod
    def planned(
        cls,
        kind: str,
        spec: dict[str, Any],
        needs: Sequence[tuple[str, str]],
        how: dict[str, Any],
        label: str,
        work: float,
    ) -> Stage:
        """Make a stage of a spec with all its fields."""
        before = AS_BEFORE[kind]
        stated = {k: v for k, v in spec.items() if k not in before or v != before[k]}
        return cls(kind, stated, tuple(needs), how, label, work)

    def json(self) -> dict[str, Any]:
        """The stage as JSON values."""
        return {
            "kind": self.kind,
            "id": self.id,
            "spec": self.spec,
            "needs": [list(n) for n in self.needs],
            "how": self.how,
            "label": self.label,
            "work": self.work,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Stage:
        """Read a stage back.

        Raises:
            DdpmkitError: when its spec is not the one that its id was made of.
        """
        needs = tuple((str(k), str(i)) for k, i in record["needs"])
        stage = cls(record["kind"], record["spec"], needs, record["how"], record["label"], record["work"])
        if stage.id != record["id"]:
            raise DdpmkitError(
                f"the record of stage '{stage.label}' is damaged, or of another ddpmkit", "run the study again"
            )
        return stage


@dataclass(frozen=True)
class Result:
    """A cell at one train seed and one sample seed, with the stages its numbers come from."""

    cell: str
    train_seed: int
    sample_seed: int
    train: str
    sample: str | None
    scores: tuple[tuple[str, str, str], ...]  # (features, score id, ref id)
    nll: str | None
    nll_train: str | None  # the same on as many images of the training split


@dataclass
class Plan:
    """All stages of a study, each once, in an order in which they can run, and the results they make up."""

    study: Study
    images: Images
    cells: list[Cell] = field(default_factory=list)
    excluded: list[tuple[str, str]] = field(default_factory=list)  # label of an impossible cell, reason
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was decided without being asked
    stages: dict[str, Stage] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    def add(self, stage: Stage) -> str:
        """Take a stage in unless it is there already; return its id."""
        self.stages.setdefault(stage.id, stage)
        return stage.id

    def warn(self, text: str) -> None:
        """Note something that the user should know before the run, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def json(self) -> dict[str, Any]:
        """What a report needs to know of the plan, as JSON values."""
        return {
            "study": self.study.name,
            "grid": self.study.grid(),
            "cells": [
                {"label": c.label, "slug": c.slug, "point": c.point, "settings": vars(c.settings)} for c in self.cells
            ],
            "excluded": [list(e) for e in self.excluded],
            "warnings": self.warnings,
            "notes": self.notes,
            "results": [
                {
                    "cell": r.cell,
                    "train_seed": r.train_seed,
                    "sample_seed": r.sample_seed,
                    "train": r.train,
                    "sample": r.sample,
                    "scores": [list(s) for s in r.scores],
                    "nll": r.nll,
                    "nll_train": r.nll_train,
                }
                for r in self.results
            ],
            "stages": [s.json() for s in self.stages.values()],
        }


@dataclass(frozen=True)
class _Context:
    """What the stages of one plan have in common."""

    registry: Registry
    images: Images
    data: str  # the hash of the images and labels
    how: dict[str, Any]  # where they are
    common: dict[str, Any]  # what enters every id: plugins that changed a library for everyone


def make_plan(study: Study, registry: Registry) -> Plan:
    """Expand a study into stages, and find out what is impossible before anything runs.

    Raises:
        DdpmkitError: when a component can't be built, does not go with another, or the data can't be read.
    """
    dataset = registry.build("dataset", study.base.dataset)
    images = contract.images(dataset, again=True)
    data_hash = images.fingerprint()
    study, left_out = _feasible(study, images)
    plan = Plan(study, images, notes=[*images.notes, *left_out])
    scale = sliver(int(images.train.min()), int(images.train.max()), 0, images.levels - 1)
    if scale:
        plan.warn(f"data set '{study.base.dataset}': {scale}")
    second_moment = float(np.mean((2.0 * images.train / (images.levels - 1) - 1) ** 2))
    chosen = [m for m in study.metrics if m in SAMPLE_METRICS]
    extractors = {text: registry.build("features", text) for text in study.features} if chosen else {}
    panels = {
        text: [m for m in chosen if index == 0 or m not in IMAGE_METRICS] for index, text in enumerate(extractors)
    }
    extractors = {text: features for text, features in extractors.items() if panels[text]}
    made = {text: (contract.label(f), contract.fingerprint(f)) for text, f in extractors.items()}
    rates = sorted(study.axes.get("ema", (study.base.ema,)))  # averages that one training keeps
    changed = registry.changed_by()
    for name in changed:
        plan.warn(f"plugin {name} replaces {', '.join(changes.made()[name][:3])} for every cell; all ids hold it")
    how = {"dataset": registry.record(dataset), "data": data_hash}
    context = _Context(registry, images, data_hash, how, {"changed_by": changed} if changed else {})
    for cell in study.cells():
        s = cell.settings
        try:
            parts = _Parts.build(s, context, second_moment)
        except Impossible as impossible:
            plan.excluded.append((cell.label, str(impossible)))
            continue
        plan.cells.append(cell)
        if parts.prior_bits > SIGNAL_LEFT:
            left = f"L_T is {parts.prior_bits:.3f} bits/dim"
            plan.warn(f"schedule '{s.schedule}' at T={s.timesteps} leaves signal in x_T: {left}")
        if warm := warmup_warning(s):
            plan.warn(warm)
        refs = {
            text: plan.add(_ref_stage(s, made[text], features, panels[text], context))
            for text, features in extractors.items()
        }
        for train_seed in study.train_seeds:
            train = _train_stage(cell, parts, train_seed, rates, context)
            plan.add(train)
            fit = None
            walks = parts.noisy and extractors
            if (parts.sigma.fitted and (walks or "nll" in study.metrics)) or (
                parts.decoder_fitted and "nll" in study.metrics
            ):
                fit = _fit_stage(cell, parts, train, context)
                plan.add(fit)
            nll: dict[str, str] = {}
            for split in ("test", "train") if "nll" in study.metrics else ():
                drawn = _draw_stage(cell, parts, train, split, context)
                plan.add(drawn)
                nll[split] = plan.add(_nll_stage(cell, parts, drawn, fit, context))
            for sample_seed in study.sample_seeds:
                sample, scores = None, []
                if extractors:
                    sampled = _sample_stage(cell, parts, train, fit, sample_seed, context)
                    sample = plan.add(sampled)
                    for text, ref in refs.items():
                        label = f"score {cell.label} {text} seed {train_seed}.{sample_seed}"
                        scores.append((text, plan.add(_score_stage(s, sampled, plan.stages[ref], label, context)), ref))
                bounds = nll.get("test"), nll.get("train")
                plan.results.append(
                    Result(cell.label, train_seed, sample_seed, train.id, sample, tuple(scores), *bounds)
                )
    if not plan.cells:
        label, reason = plan.excluded[0]
        raise DdpmkitError(f"no cell is possible; {label}: {reason}", "choose another of the two")
    return plan


def _feasible(study: Study, images: Images) -> tuple[Study, list[str]]:
    """Return the study with the metrics that can be taken in every cell, and notes on those left out.

    Raises:
        DdpmkitError: when one can't that was asked for by name, or none is left.
    """
    sizes = {(c.settings.samples, c.settings.reference_split) for c in study.cells()}
    reasons: dict[str, str] = {}
    for metric in study.metrics:
        for count, split in sorted(sizes) if metric in SAMPLE_METRICS else ():
            n_reference = len(images.test if split == "test" else images.train)
            reason = why_not(metric, count, n_reference, train=images.train, heldout=images.test)
            if reason:
                reasons.setdefault(metric, reason)
    kept = tuple(m for m in study.metrics if m not in reasons)
    if reasons and (not study.by_default or not kept):
        metric, reason = next(iter(reasons.items()))
        raise DdpmkitError(
            f"{metric} can't be taken: {reason}", f"leave it out, as in --metrics {','.join(kept) or 'nll'}"
        )
    return replace(study, metrics=kept), [f"{metric}: left out, {reason}" for metric, reason in reasons.items()]


@dataclass(frozen=True)
class _Parts:
    """A cell's components as objects, checked against each other."""

    schedule: Any
    sigma: Any
    weighting: Any
    backbone: Any
    sampler: Any
    strided: Sequence[int]
    prior_bits: float
    decoder_fitted: bool
    noisy: bool  # whether a step of the walk can add noise at all
    identities: dict[str, dict[str, Any]]  # what of each enters ids, a plugin's values included
    records: dict[str, dict[str, Any]]  # how to build each again

    @classmethod
    def build(cls, s: Settings, context: _Context, second_moment: float) -> _Parts:
        registry = context.registry
        schedule, sigma, weighting, backbone, sampler = (
            registry.build(kind, getattr(s, kind)) for kind in ("schedule", "sigma", "weighting", "backbone", "sampler")
        )
        tables = tables_for(schedule, s.timesteps)
        varies = sigma.learned or sigma.fitted
        log_sigma2 = log_bounds(sigma, tables)[1] if varies else fixed_log_variance(sigma, tables)
        _refuse_pairs(s, sigma, weighting)
        if s.prediction == "v" and not tables.variance_preserving:
            raise Impossible(f"v-prediction needs a variance-preserving schedule, and {s.schedule} is none")
        if s.prediction == "eps" and not tables.signal.all():
            raise Impossible(f"{s.schedule} leaves no signal at its last step, so eps says nothing of x0 there")
        log_sigma2 = log_sigma2.copy()
        log_sigma2[0] = decoder_log_variance(tables, "tilde2" if s.decoder_variance == "fitted" else s.decoder_variance)
        weights = contract.declared_weights(weighting, sigma, tables, log_sigma2)
        steps = contract.timesteps(sampler, s.timesteps, s.sampling_steps)
        strided = tables.strided(steps)
        walk_bounds = log_bounds(sigma, strided)
        kernel = contract.kernel(sampler, strided)
        noisy = any(bool(np.any(v)) for v in kernel)
        found = {
            "schedule": identified(schedule, registry, tables.a, tables.b2, tables.prior_variance),
            "sigma": identified(sigma, registry, *log_bounds(sigma, tables)),
            "sigma of the walk": identified(sigma, registry, *walk_bounds),
            "weighting": identified(weighting, registry, weights, contract.vlb_share(weighting, s.timesteps)),
            "sampler": identified(sampler, registry, *kernel),
            "backbone": _identified_backbone(backbone, context, learned=sigma.learned),
        }
        return cls(
            schedule,
            sigma,
            weighting,
            backbone,
            sampler,
            steps,
            prior_bits(tables, second_moment),
            s.decoder_variance == "fitted",
            noisy,
            {part: identity for part, (identity, _) in found.items()},
            {part: record for part, (_, record) in found.items()},
        )


def _identified_backbone(backbone: Any, c: _Context, *, learned: bool) -> Identified:
    """A plugin's network is built once without memory, to see which files it reads for that."""
    if c.registry.is_builtin(backbone):
        return identified(backbone, c.registry)
    with reading() as paths:
        build_without_memory(backbone, c.images, learned=learned)
    return identified(backbone, c.registry, files=paths)


def build_without_memory(backbone: Backbone, images: Images, *, learned: bool) -> nn.Module:
    """Build a network on torch's meta device, or where it needs real numbers for that, as it is."""
    import torch

    channels, size = images.train.shape[1], images.train.shape[2]
    shape = {"in_channels": channels, "out_channels": channels * (2 if learned else 1), "image_size": size}
    try:
        with torch.device("meta"):
            return contract.network(backbone, **shape)
    except DdpmkitError:
        return contract.network(backbone, **shape)


def _refuse_pairs(s: Settings, sigma: Any, weighting: Any) -> None:
    """Refuse sigmas and weightings that do not go together.

    Raises:
        Impossible: with the reason.
    """
    share = contract.vlb_share(weighting, s.timesteps)
    teaches = weighting.is_bound or share > 0
    if sigma.learned and not teaches:
        raise Impossible(f"{s.weighting} has no term that teaches {s.sigma}; hybrid and vlb have")
    if share > 0 and not sigma.learned:
        raise Impossible(f"{s.sigma} learns nothing from {s.weighting}'s share of the bound; use simple")
    if sigma.fitted and weighting.uses_sigma:
        raise Impossible(f"{s.weighting} needs {s.sigma} for the training that {s.sigma} is fitted to")
    if s.decoder_variance == "fitted" and weighting.decoder_first and not sigma.learned:
        raise Impossible(f"{s.weighting} trains on the decoder's variance, which is fitted to the trained network")
    if s.decoder_variance != "tilde2" and sigma.learned:
        raise Impossible(f"{s.sigma} gives the decoder its variance too; decoder_variance={s.decoder_variance} can't")


def builtin_identity(name: str) -> dict[str, Any]:
    """What of a prediction or a metric that comes with ddpmkit enters ids: the same form as a component's."""
    return {"name": f"{BUILTIN}/{name}", "params": {}, "version": 1}


def bare_name(identity: dict[str, Any]) -> str:
    """Return the name without the plugin that brings it."""
    return str(identity["name"]).rpartition("/")[2]


def _ref_stage(s: Settings, made: tuple[str, str], features: Any, metrics: list[str], c: _Context) -> Stage:
    label, fingerprint = made
    identity, record = identified(features, c.registry)
    spec = {
        **c.common,
        "data": c.data,
        "split": s.reference_split,
        "metrics": [builtin_identity(m) for m in metrics],
        "features": {**identity, "fingerprint": fingerprint},
        "samples": s.samples,
    }
    how = {**c.how, "features": record}
    return Stage.planned("ref", spec, (), how, f"reference {label}", len(c.images.test))


def _score_stage(s: Settings, sampled: Stage, ref: Stage, label: str, c: _Context) -> Stage:
    spec = {**c.common, "metrics": ref.spec["metrics"], "sample": sampled.id, "ref": ref.id}
    return Stage.planned("score", spec, (("sample", sampled.id), ("ref", ref.id)), ref.how, label, s.samples)


def _train_stage(cell: Cell, parts: _Parts, seed: int, rates: Sequence[float], c: _Context) -> Stage:
    s = cell.settings
    spec = {
        **c.common,
        "data": c.data,
        **{kind: parts.identities[kind] for kind in ("schedule", "weighting", "backbone")},
        "T": s.timesteps,
        "prediction": builtin_identity(s.prediction),
        "steps": s.train_steps,
        "batch_size": s.batch_size,
        "micro_batch": min(s.micro_batch, s.batch_size),
        "learning_rate": s.learning_rate,
        "lr_decay": s.lr_decay,
        "warmup": s.warmup,
        "weight_decay": s.weight_decay,
        "grad_clip": s.grad_clip,
        "emas": list(rates),
        "timestep_sampling": s.timestep_sampling,
        "dropout": s.dropout,
        "precision": s.precision,
        "seed": seed,
    }
    how = {**c.how, **{kind: parts.records[kind] for kind in ("schedule", "weighting", "backbone")}}
    if parts.weighting.uses_sigma or parts.sigma.learned:
        spec["sigma"] = parts.identities["sigma"]
        spec["decoder_variance"] = s.decoder_variance
        how["sigma"] = parts.records["sigma"]
    unseen = [k for k in FIELDS if k in AFTER_TRAINING or (k == "sigma" and k not in spec)]
    shown = Cell(
        replace(s, **{k: FIELDS[k].default for k in unseen}), {k: v for k, v in cell.point.items() if k not in unseen}
    )
    return Stage.planned("train", spec, (), how, f"train {shown.label} seed {seed}", s.train_steps * s.batch_size)


def _asked(s: Settings, train: Stage, seed: int | str) -> dict[str, Any]:
    """What every stage that runs a trained network says: whose weights, how many images at once, how exactly."""
    return {
        "train": train.id,
        "weights": f"ema {s.ema!r}",
        "batch": s.eval_batch,
        "eval_precision": s.eval_precision,
        "seed": seed,
    }


def _fit_stage(cell: Cell, parts: _Parts, train: Stage, c: _Context) -> Stage:
    s = cell.settings
    spec = {
        **c.common,
        **_asked(s, train, train.spec["seed"]),
        "data": c.data,
        "split": "train",
        "draws": s.fit_images,
    }
    how = {**train.how, **c.how, "sigma": parts.records["sigma"]}
    work = s.timesteps * s.fit_images + min(len(c.images.train), 1024)
    label = f"fit {cell.label} seed {train.spec['seed']}"
    return Stage.planned("fit", spec, (("train", train.id),), how, label, work)


def _sample_stage(cell: Cell, parts: _Parts, train: Stage, fit: Stage | None, seed: int, c: _Context) -> Stage:
    s = cell.settings
    spec = {
        **c.common,
        # The same x_T in every cell; another one for each replicate.
        **_asked(s, train, f"{train.spec['seed']}.{seed}"),
        "sampler": parts.identities["sampler"],
        "times": list(parts.strided),
        "count": s.samples,
    }
    how = {**train.how, "sampler": parts.records["sampler"], "sigma": parts.records["sigma"]}
    needs = [("train", train.id)]
    if parts.sampler.uses_sigma or (parts.sigma.fitted and parts.noisy):
        spec["sigma"] = parts.identities["sigma of the walk"]
    if parts.sigma.fitted and parts.noisy and fit is not None:
        spec["fit"] = fit.id
        needs.append(("fit", fit.id))
    label = f"sample {cell.label} seed {train.spec['seed']}.{seed}"
    return Stage.planned("sample", spec, needs, how, label, s.samples * len(parts.strided))


def _draw_stage(cell: Cell, parts: _Parts, train: Stage, split: str, c: _Context) -> Stage:
    """What the network is asked for the bound; every fixed sigma and decoder variance reads the same answers."""
    s, count = cell.settings, len(c.images.test)
    spec: dict[str, Any] = {
        **c.common,
        # Its own noise for each replicate: the interval then holds the Monte-Carlo error.
        **_asked(s, train, train.spec["seed"]),
        "data": c.data,
        "split": split,
    }
    if s.nll_full:
        spec["full"] = True
        work = s.timesteps * count
    elif s.nll_se is not None:
        spec["se"] = s.nll_se
        work = s.nll_evals
    else:
        spec["evals"] = s.nll_evals
        work = s.nll_evals
    how = {**train.how, **c.how, "sigma": parts.records["sigma"]}
    label = f"draw {cell.label} {split} seed {train.spec['seed']}"
    return Stage.planned("draw", spec, (("train", train.id),), how, label, work + 2 * count)


def _nll_stage(cell: Cell, parts: _Parts, drawn: Stage, fit: Stage | None, c: _Context) -> Stage:
    """The bound from what was drawn: arithmetic, no network."""
    s = cell.settings
    spec = {
        **c.common,
        "draw": drawn.id,
        "sigma": parts.identities["sigma"],
        "decoder": "cdf",
        "decoder_variance": s.decoder_variance,
    }
    needs = [("draw", drawn.id)]
    if fit is not None:
        spec["fit"] = fit.id
        needs.append(("fit", fit.id))
    label = f"nll {cell.label} {drawn.spec['split']} seed {drawn.spec['seed']}"
    return Stage.planned("nll", spec, needs, drawn.how, label, drawn.work)
