"""From a grid to stages: each named by the hash of all that can change its output, and shared where that agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ddpmkit.distances.images import sliver
from ddpmkit.distances.reference import distance_label
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import changes, contract
from ddpmkit.plugin.interfaces import Images
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import Cell, Study, scored
from ddpmkit.study.design import ONE
from ddpmkit.study.identity import identified
from ddpmkit.study.impossible import Impossible, of_the_cell, refuse_sparse
from ddpmkit.study.kept import Data, find_data
from ddpmkit.study.kind import Per
from ddpmkit.study.metrics import of_images
from ddpmkit.study.planning import ChosenFeatures, Context, Parts, Place, Wanted, network_of
from ddpmkit.study.records import metric_keys
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages import STAGE_KINDS
from ddpmkit.study.stages.draw import Draw
from ddpmkit.study.stages.nll import Nll
from ddpmkit.study.stages.ref import Ref
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.stages.score import Score
from ddpmkit.study.stages.train import Train
from ddpmkit.study.store import Store
from ddpmkit.study.takeable import takeable
from ddpmkit.study.trunks import along_trunks
from ddpmkit.study.tune import refuse_clashes
from ddpmkit.study.warmup import warmup_warning
from ddpmkit.study.warnings import features_warning, seeds_warning

# Networks that were tried, as network_of() names them, and why they can't be.
Refused = Mapping[tuple[Any, ...], DdpmkitError]

SIGNAL_LEFT = 0.01  # bits/dim of L_T above which a schedule is warned about


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
    data: Data
    cells: list[Cell] = field(default_factory=list)
    excluded: list[tuple[str, str]] = field(default_factory=list)  # label of an impossible cell, reason
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was decided without being asked
    stages: dict[str, Stage[Any]] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    @property
    def images(self) -> Images:
        """The images of the study's data set."""
        return self.data.images

    def add(self, at: Place) -> None:
        """Take the stages of a place in, each unless it is there already."""
        for stage in at.planned:
            self.stages.setdefault(stage.id, stage)

    def warn(self, text: str) -> None:
        """Note something that the user should know before the run, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def json(self) -> dict[str, Any]:
        """What a report needs to know of the plan, as JSON values."""
        named = {"classes": list(self.images.classes)} if self.images.classes else {}
        return {
            **named,
            "study": self.study.name,
            "grid": self.study.grid(),
            **({"scored": [[f, list(taken)] for f, taken in self.study.scored]} if self.study.scored else {}),
            **({"stopped": {c: list(s) for c, s in self.study.stopped.items()}} if self.study.stopped else {}),
            **({"orderings": [o.json() for o in self.study.orderings]} if self.study.orderings else {}),
            **({"tuned": self.study.tune.json()} if self.study.tune else {}),
            "cells": [
                {"label": c.label, "slug": c.slug, "point": c.point, "settings": vars(c.settings)} for c in self.cells
            ],
            "excluded": [list(e) for e in self.excluded],
            "warnings": self.warnings,
            "notes": [*self.notes, *(self.study.tune.warnings() if self.study.tune else [])],  # a report has no others
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


def make_plan(
    study: Study, registry: Registry, store: Store | None = None, *, pixels: bool = True, refused: Refused | None = None
) -> Plan:
    """Expand a study into stages, and find out what is impossible before anything runs.

    Where ``store`` is given, decoded images are taken from it. Without ``pixels`` none is read of data that are
    kept there or have an outline; what only pixels tell, as that all held-out images are copies, stays unsaid.
    ``refused`` says of cells that were tried why they can't be. A cell that can't be is left out, with the reason.

    Raises:
        DdpmkitError: when no cell is possible, a component of a plugin raises, or the data can't be read.
    """
    dataset = registry.build("dataset", study.base.dataset)
    data = find_data(store, registry, dataset, again=True, outlined=not pixels)
    images = data.images
    cells = study.cells()
    if any(cell.settings.conditional for cell in cells):
        refuse_sparse(study.base.dataset, images.labels)
    study, left_out = takeable(study, cells, data, registry, pixels=pixels)
    blind = ["one at a time: whether the effect of one choice depends on another can't be seen"]
    plan = Plan(study, data, notes=[*images.notes, *left_out, *(blind if study.design == ONE else [])])
    if study.tune:
        refuse_clashes(study.tune, study.axes, study.train_seeds)  # those of a study that grew
        plan.notes += study.tune.notes()
        plan.warnings += study.tune.warnings()
    scale = sliver(data.least, data.most, 0, images.levels - 1)
    if scale:
        plan.warn(f"data set '{study.base.dataset}': {scale}; has it fewer levels, or another range?")
    for text in (seeds_warning(study), features_warning(study, images, registry) if of_images(study.metrics) else None):
        if text:
            plan.warn(text)
    changed = registry.changed_by()
    for name in changed:
        plan.warn(f"plugin {name} replaces {', '.join(changes.made()[name][:3])} for every cell; all ids hold it")
    context = Context(
        study=study,
        registry=registry,
        images=images,
        data=data.fingerprint,
        recipe={"dataset": registry.record(dataset), "data": data.fingerprint},
        rates=tuple(sorted(study.axes.get("ema", (study.base.ema,)))),
        extractors=_extractors(study, registry),
        second_moment=data.second_moment,
        changed_by=changed or None,
    )
    refusals: list[DdpmkitError] = []
    for cell in cells:
        try:
            if refused and (why := refused.get(network_of(cell.settings))):
                raise why
            parts = Parts.build(cell.settings, context)
        except Impossible as impossible:
            plan.excluded.append((cell.label, str(impossible)))
            said = f"no cell is possible; {cell.label}: {impossible}"
            refusals.append(DdpmkitError(said, impossible.hint))
            continue
        except DdpmkitError as err:
            if not of_the_cell(err):
                raise
            plan.excluded.append((cell.label, err.message))
            refusals.append(err)
            continue
        plan.cells.append(cell)
        _warn(plan, cell, parts)
        of_cell = _planned(Place(cell, parts, context), "cell")
        for train_seed in study.seeds_of(cell):
            of_training = _planned(replace(of_cell, train_seed=train_seed), "train seed")
            for sample_seed in study.sample_seeds:
                at = _planned(replace(of_training, sample_seed=sample_seed), "sample seed")
                plan.add(at)
                plan.results.append(_result(at))
    plan.stages = along_trunks(plan.stages)
    if not plan.cells:
        raise refusals[0]
    return plan


def _planned(at: Place, per: Per) -> Place:
    """Return the place with the stages of the kinds that are planned that often."""
    for kind in STAGE_KINDS.values():
        if kind.per == per:
            at = at.holding(kind.planned(at))
    return at


def _extractors(study: Study, registry: Registry) -> tuple[ChosenFeatures, ...]:
    """Build the extractors and the metrics; those of pixels are taken once, with the first extractor.

    Raises:
        DdpmkitError: when one can't be built, or two metrics would share a column.
    """
    built = {text: registry.build("metric", text) for text in of_images(study.metrics)}
    chosen = {text: (metric, identified(metric, registry)) for text, metric in built.items()}
    out, columns = [], dict[str, tuple[Wanted, str]]()
    for text, taken in scored(study) if chosen else ():
        features = registry.build("features", text)
        first = text == study.features[0]
        here = [(m, found) for name, (m, found) in chosen.items() if name in taken and (first or m.of_features)]
        keys = metric_keys([identity for _, (identity, _) in here])
        metrics = tuple(Wanted(key, metric, found) for key, (metric, found) in zip(keys, here, strict=True))
        if metrics:
            label, fingerprint = contract.label(features), contract.fingerprint(features)
            _refuse_namesakes(metrics, text, {"label": distance_label(features), "features": label}, columns)
            out.append(ChosenFeatures(text, features, label, fingerprint, identified(features, registry), metrics))
    return tuple(out)


def _refuse_namesakes(
    metrics: Sequence[Wanted], features: str, protocol: Mapping[str, str], columns: dict[str, tuple[Wanted, str]]
) -> None:
    """Refuse metrics that would share a column, or the place of their values in a record.

    Args:
        metrics: Those of one extractor.
        features: The extractor, as it was asked for.
        protocol: How the distances are taken with it.
        columns: Column -> the metric and the extractor of it, of the extractors before; added to.

    Raises:
        DdpmkitError: with their names.
    """
    keys: dict[str, tuple[Wanted, str]] = {}
    for wanted in metrics:
        for taken, name in ((keys, wanted.key), (columns, contract.column(wanted.metric, protocol))):
            first, of = taken.setdefault(name, (wanted, features))
            if first is not wanted:
                both = " and ".join(
                    f"'{w.identified[0]['name']}'" + (f" of features '{text}'" if of != features else "")
                    for w, text in ((first, of), (wanted, features))
                )
                raise DdpmkitError(f"the metrics {both} would both be called {name} in tables", "ask for one of them")


def _warn(plan: Plan, cell: Cell, parts: Parts) -> None:
    s = cell.settings
    if parts.prior_bits > SIGNAL_LEFT:
        left = f"L_T is {parts.prior_bits:.3f} bits/dim"
        plan.warn(f"schedule '{s.schedule}' at T={s.timesteps} leaves signal in x_T: {left}")
    if warm := warmup_warning(s):
        plan.warn(warm)


def _result(at: Place) -> Result:
    """The stages that the numbers of one place come from."""
    sample = at.maybe(Sample)
    scores = zip(at.context.extractors, at.all(Score), at.all(Ref), strict=True) if sample else ()
    splits = {stage.id: stage.spec.split for stage in at.all(Draw)}
    bounds = {splits[stage.spec.draw]: stage.id for stage in at.all(Nll)}
    return Result(
        cell=at.cell.label,
        train_seed=at.train_seed,
        sample_seed=at.sample_seed,
        train=at.one(Train).id,
        sample=sample.id if sample else None,
        scores=tuple((asked.text, score.id, ref.id) for asked, score, ref in scores),
        nll=bounds.get(at.settings.nll_split),
        nll_train=bounds.get("train"),
    )
