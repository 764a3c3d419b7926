"""From a grid to stages: each named by the hash of all that can change its output, and shared where that agrees."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddpmkit import files
from ddpmkit.diffusion.tables import (
    Array,
    Tables,
    checked_weights,
    decoder_log_variance,
    fixed_log_variance,
    log_bounds,
    prior_bits,
    tables_for,
)
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Component, Images
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import IMAGE_METRICS, SAMPLE_METRICS, Cell, Settings, Study

# Raise a number when the same spec comes to mean other results.
VERSIONS = {"ref": 2, "train": 1, "fit": 1, "sample": 1, "draw": 1, "nll": 3, "score": 2}
# Axes that no training sees: cells that differ in these alone share theirs, and it is not named after one of them.
AFTER_TRAINING = (
    "sampler", "sampling_steps", "samples", "ema", "eval_batch", "reference_split", "nll_evals", "nll_se", "nll_full",
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
        spec: what can change the output; its hash is the id.
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
        whole = {"kind": self.kind, "version": VERSIONS[self.kind], "spec": self.spec}
        return files.sha256(files.canonical(whole).encode())

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
        """Read a stage back."""
        needs = tuple((str(k), str(i)) for k, i in record["needs"])
        return cls(record["kind"], record["spec"], needs, record["how"], record["label"], record["work"])


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


def make_plan(study: Study, registry: Registry) -> Plan:
    """Expand a study into stages, and find out what is impossible before anything runs.

    Raises:
        DdpmkitError: when a component can't be built, does not go with another, or the data can't be read.
    """
    dataset = registry.build("dataset", study.base.dataset)
    with blame("dataset", study.base.dataset):
        images: Images = dataset.load()
    data_hash = images.fingerprint()
    data_how = {"dataset": registry.record(dataset), "data": data_hash}
    plan = Plan(study, images)
    second_moment = float(np.mean((2.0 * images.train / (images.levels - 1) - 1) ** 2))
    chosen = [m for m in study.metrics if m in SAMPLE_METRICS]
    extractors = {text: registry.build("features", text) for text in study.features} if chosen else {}
    panels = {
        text: [m for m in chosen if index == 0 or m not in IMAGE_METRICS] for index, text in enumerate(extractors)
    }
    extractors = {text: features for text, features in extractors.items() if panels[text]}
    rates = sorted(study.axes.get("ema", (study.base.ema,)))  # averages that one training keeps
    for cell in study.cells():
        s = cell.settings
        try:
            parts = _Parts.build(s, registry, second_moment)
        except Impossible as impossible:
            plan.excluded.append((cell.label, str(impossible)))
            continue
        plan.cells.append(cell)
        if parts.prior_bits > SIGNAL_LEFT:
            left = f"L_T is {parts.prior_bits:.3f} bits/dim"
            plan.warn(f"schedule '{s.schedule}' at T={s.timesteps} leaves signal in x_T: {left}")
        refs = {
            text: plan.add(
                Stage(
                    "ref",
                    {
                        "data": data_hash,
                        "split": s.reference_split,
                        "metrics": panels[text],
                        "features": {**_identity(features, registry), "fingerprint": features.fingerprint()},
                        "samples": s.samples,
                    },
                    (),
                    {**data_how, "features": registry.record(features)},
                    f"reference {features.label()}",
                    len(images.test),
                )
            )
            for text, features in extractors.items()
        }
        for train_seed in study.train_seeds:
            train = _train_stage(cell, parts, train_seed, rates, data_hash, data_how, registry)
            plan.add(train)
            fit = None
            walks = parts.noisy and extractors
            if (parts.sigma.fitted and (walks or "nll" in study.metrics)) or (
                parts.decoder_fitted and "nll" in study.metrics
            ):
                fit = _fit_stage(cell, parts, train, data_hash, data_how, registry, len(images.train))
                plan.add(fit)
            nll: dict[str, str] = {}
            for split in ("test", "train") if "nll" in study.metrics else ():
                drawn = _draw_stage(cell, parts, train, split, data_hash, data_how, registry, images)
                plan.add(drawn)
                nll[split] = plan.add(_nll_stage(cell, parts, drawn, fit, registry))
            for sample_seed in study.sample_seeds:
                sample, scores = None, []
                if extractors:
                    sampled = _sample_stage(cell, parts, train, fit, sample_seed, registry)
                    sample = plan.add(sampled)
                    for text, ref in refs.items():
                        stage = Stage(
                            "score",
                            {"metrics": panels[text], "sample": sampled.id, "ref": ref},
                            (("sample", sampled.id), ("ref", ref)),
                            plan.stages[ref].how,
                            f"score {cell.label} {text} seed {train_seed}.{sample_seed}",
                            s.samples,
                        )
                        scores.append((text, plan.add(stage), ref))
                bounds = nll.get("test"), nll.get("train")
                plan.results.append(
                    Result(cell.label, train_seed, sample_seed, train.id, sample, tuple(scores), *bounds)
                )
    if not plan.cells:
        label, reason = plan.excluded[0]
        raise DdpmkitError(f"no cell is possible; {label}: {reason}", "choose another of the two")
    return plan


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

    @classmethod
    def build(cls, s: Settings, registry: Registry, second_moment: float) -> _Parts:
        schedule, sigma, weighting, backbone, sampler = (
            registry.build(kind, getattr(s, kind)) for kind in ("schedule", "sigma", "weighting", "backbone", "sampler")
        )
        with blame("schedule", s.schedule):
            tables = tables_for(schedule, s.timesteps)
        varies = sigma.learned or sigma.fitted
        with blame("sigma", s.sigma):
            log_sigma2 = log_bounds(sigma, tables)[1] if varies else fixed_log_variance(sigma, tables)
        _refuse_pairs(s, sigma, weighting)
        if s.prediction == "v" and not tables.variance_preserving:
            raise Impossible(f"v-prediction needs a variance-preserving schedule, and {s.schedule} is none")
        if s.prediction == "eps" and not tables.signal.all():
            raise Impossible(f"{s.schedule} leaves no signal at its last step, so eps says nothing of x0 there")
        log_sigma2 = log_sigma2.copy()
        log_sigma2[0] = decoder_log_variance(tables, "tilde2" if s.decoder_variance == "fitted" else s.decoder_variance)
        with blame("weighting", s.weighting):
            _check_weighting(weighting, sigma, tables, log_sigma2)
        with blame("sampler", s.sampler):
            steps = [int(t) for t in sampler.timesteps(s.timesteps, s.sampling_steps)]
            strided = tables.strided(steps)
        with blame("sigma", s.sigma):
            log_bounds(sigma, strided)
        with blame("sampler", s.sampler):
            noisy = any(bool(np.any(v)) for v in sampler.kernel(strided))
        fitted = s.decoder_variance == "fitted"
        left = prior_bits(tables, second_moment)
        return cls(schedule, sigma, weighting, backbone, sampler, steps, left, fitted, noisy)


def _check_weighting(weighting: Any, sigma: Any, tables: Tables, log_sigma2: Array) -> None:
    """Refuse a weighting whose declarations are not true: an id would hold less than what the training sees.

    Raises:
        DdpmkitError: with what it should say.
    """
    weights = checked_weights(weighting, tables, log_sigma2)
    hint = f"ddpmkit show {weighting.name}"
    if weighting.space not in ("x0", "prediction"):
        raise DdpmkitError(
            f"weighting '{weighting.name}': space is 'x0' or 'prediction', not '{weighting.space}'", hint
        )
    sees = not np.array_equal(weights, checked_weights(weighting, tables, log_sigma2 + 1))
    if (sees or weighting.is_bound or weighting.decoder_first) and not weighting.uses_sigma:
        raise DdpmkitError(f"weighting '{weighting.name}' depends on sigma and does not say uses_sigma = True", hint)
    bound = tables.posterior_x0**2 / (2 * np.exp(log_sigma2))
    if weighting.is_bound and sigma.learned and not np.allclose(weights, bound, rtol=1e-9):
        raise DdpmkitError(
            f"weighting '{weighting.name}' says it is the bound and weighs its steps otherwise: a learned sigma would "
            "take the bound in full",
            "leave out is_bound = True",
        )


def _refuse_pairs(s: Settings, sigma: Any, weighting: Any) -> None:
    """Refuse sigmas and weightings that do not go together.

    Raises:
        Impossible: with the reason.
    """
    teaches = weighting.is_bound or weighting.vlb_share(s.timesteps) > 0
    if sigma.learned and not teaches:
        raise Impossible(f"{s.weighting} has no term that teaches {s.sigma}; hybrid and vlb have")
    if weighting.vlb_share(s.timesteps) > 0 and not sigma.learned:
        raise Impossible(f"{s.sigma} learns nothing from {s.weighting}'s share of the bound; use simple")
    if sigma.fitted and weighting.uses_sigma:
        raise Impossible(f"{s.weighting} needs {s.sigma} for the training that {s.sigma} is fitted to")
    if s.decoder_variance == "fitted" and weighting.decoder_first and not sigma.learned:
        raise Impossible(f"{s.weighting} trains on the decoder's variance, which is fitted to the trained network")
    if s.decoder_variance != "tilde2" and sigma.learned:
        raise Impossible(f"{s.sigma} gives the decoder its variance too; decoder_variance={s.decoder_variance} can't")


@contextmanager
def blame(kind: str, text: str) -> Iterator[None]:
    """Turn whatever a component raises while a study is planned into an error that names it."""
    try:
        yield
    except DdpmkitError:
        raise
    except (Exception, SystemExit) as err:  # a plugin's code may raise anything, even an exit
        raise DdpmkitError(
            f"{kind} '{text}' failed: {type(err).__name__}: {err}", "ddpmkit -v ablate ... shows where"
        ) from err


def _identity(obj: Component, registry: Registry) -> dict[str, Any]:
    """What of a component enters an id: who makes it, its parameters, and its version."""
    record = registry.record(obj)
    return {"name": f"{record['plugin']}/{record['name']}", "params": record["params"], "version": record["version"]}


def _train_stage(
    cell: Cell,
    parts: _Parts,
    seed: int,
    rates: Sequence[float],
    data_hash: str,
    data_how: dict[str, Any],
    registry: Registry,
) -> Stage:
    s = cell.settings
    spec = {
        "data": data_hash,
        "schedule": _identity(parts.schedule, registry),
        "weighting": _identity(parts.weighting, registry),
        "backbone": _identity(parts.backbone, registry),
        "T": s.timesteps,
        "prediction": s.prediction,
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
    how = {**data_how, **{k: registry.record(getattr(parts, k)) for k in ("schedule", "weighting", "backbone")}}
    if parts.weighting.uses_sigma or parts.sigma.learned:
        spec["sigma"] = _identity(parts.sigma, registry)
        spec["decoder_variance"] = s.decoder_variance
        how["sigma"] = registry.record(parts.sigma)
    shown = Cell(s, {k: v for k, v in cell.point.items() if k not in AFTER_TRAINING and (k != "sigma" or k in spec)})
    return Stage("train", spec, (), how, f"train {shown.label} seed {seed}", s.train_steps * s.batch_size)


def _weights(s: Settings) -> str:
    """Name which weights of a training are used."""
    return f"ema {s.ema!r}"


def _fit_stage(
    cell: Cell,
    parts: _Parts,
    train: Stage,
    data_hash: str,
    data_how: dict[str, Any],
    registry: Registry,
    images: int,
) -> Stage:
    s = cell.settings
    spec = {
        "train": train.id,
        "weights": _weights(s),
        "data": data_hash,
        "split": "train",
        "draws": s.fit_images,
        "batch": s.eval_batch,
        "precision": "fp32",
        "seed": train.spec["seed"],
    }
    how = {**train.how, **data_how, "sigma": registry.record(parts.sigma)}
    work = s.timesteps * s.fit_images + min(images, 1024)
    return Stage("fit", spec, (("train", train.id),), how, f"fit {cell.label} seed {train.spec['seed']}", work)


def _sample_stage(cell: Cell, parts: _Parts, train: Stage, fit: Stage | None, seed: int, registry: Registry) -> Stage:
    s = cell.settings
    spec = {
        "train": train.id,
        "weights": _weights(s),
        "sampler": _identity(parts.sampler, registry),
        "times": list(parts.strided),
        "count": s.samples,
        "batch": s.eval_batch,
        "precision": "fp32",
        "seed": f"{train.spec['seed']}.{seed}",  # the same x_T in every cell; another one for each replicate
    }
    how = {**train.how, "sampler": registry.record(parts.sampler), "sigma": registry.record(parts.sigma)}
    needs = [("train", train.id)]
    if parts.sampler.uses_sigma or (parts.sigma.fitted and parts.noisy):
        spec["sigma"] = _identity(parts.sigma, registry)
    if parts.sigma.fitted and parts.noisy and fit is not None:
        spec["fit"] = fit.id
        needs.append(("fit", fit.id))
    label = f"sample {cell.label} seed {train.spec['seed']}.{seed}"
    return Stage("sample", spec, tuple(needs), how, label, s.samples * len(parts.strided))


def _draw_stage(
    cell: Cell,
    parts: _Parts,
    train: Stage,
    split: str,
    data_hash: str,
    data_how: dict[str, Any],
    registry: Registry,
    images: Images,
) -> Stage:
    """What the network is asked for the bound; every fixed sigma and decoder variance reads the same answers."""
    s, count = cell.settings, len(images.test)
    spec: dict[str, Any] = {
        "train": train.id,
        "weights": _weights(s),
        "data": data_hash,
        "split": split,
        "batch": s.eval_batch,
        "precision": "fp32",
        "seed": train.spec["seed"],  # its own noise for each replicate: the interval then holds the Monte-Carlo error
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
    how = {**train.how, **data_how, "sigma": registry.record(parts.sigma)}
    label = f"draw {cell.label} {split} seed {train.spec['seed']}"
    return Stage("draw", spec, (("train", train.id),), how, label, work + 2 * count)


def _nll_stage(cell: Cell, parts: _Parts, drawn: Stage, fit: Stage | None, registry: Registry) -> Stage:
    """The bound from what was drawn: arithmetic, no network."""
    s = cell.settings
    spec = {
        "draw": drawn.id,
        "sigma": _identity(parts.sigma, registry),
        "decoder": "cdf",
        "decoder_variance": s.decoder_variance,
    }
    needs = [("draw", drawn.id)]
    if fit is not None:
        spec["fit"] = fit.id
        needs.append(("fit", fit.id))
    label = f"nll {cell.label} {drawn.spec['split']} seed {drawn.spec['seed']}"
    return Stage("nll", spec, tuple(needs), drawn.how, label, drawn.work)
