"""What each cell of a study lost at every noise level, what it was trained to weigh there, and what could be lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpmkit import files
from ddpmkit.diffusion.optimal_loss import OptimalLoss, optimal_loss
from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.diffusion.training_weight import training_weight
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood.control_variates import LinearGaussian
from ddpmkit.likelihood.draws import Draws
from ddpmkit.likelihood.loss_by_step import LossByStep, loss_by_step
from ddpmkit.pixels import to_pixels
from ddpmkit.plugin.interfaces import Images
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.data import load_images
from ddpmkit.study.settings import NLL
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages import read_stage
from ddpmkit.study.stages.draw import Draw, bounded_of_training, split_images
from ddpmkit.study.stages.nll import reported
from ddpmkit.study.stages.train import Train
from ddpmkit.study.store import Store
from ddpmkit.text.naming import in_common

SPLITS = ("train", "test")
POINTS = 64  # log-SNRs at which the optimal loss is worked out


@dataclass(frozen=True, eq=False)
class LossCurves:
    """Curves over log SNR.

    Attributes:
        weights: cell, or what cells with one training have in common -> log SNR, the normalised weight there.
        losses: split, ``train`` or ``test`` -> cell -> its eps-loss, one a train seed.
        optimal: split -> what its training knows, as "mirrored", empty for the images alone -> the optimal loss.
        linear: log SNR, the eps-loss of the best linear denoiser of the training images on themselves; None where
            images have too many dimensions.
    """

    weights: dict[str, tuple[Array, Array]]
    losses: dict[str, dict[str, list[LossByStep]]]
    optimal: dict[str, dict[str, OptimalLoss]]
    linear: tuple[Array, Array] | None


def loss_curves(folder: Path, registry: Registry, *, draws: int = 512) -> LossCurves:
    """Return the curves of a study: its cells' from what its likelihoods were drawn, the optimal ones from its data.

    Args:
        folder: The study's.
        registry: Where its components come from.
        draws: Pairs of image and noise for the optimal loss.

    Raises:
        DdpmkitError: when no likelihood was drawn, or data or a component are not here any more.
    """
    plan, store = files.read_sealed(folder / "plan.json") or {}, Store(folder.parent.parent)
    stages = {s["id"]: s for s in plan["stages"]}
    drawn = list(_drawn(plan, stages, store))
    if not drawn:
        metrics = ",".join(dict.fromkeys([*plan.get("grid", {}).get("metrics", ()), NLL]))  # it may lose none
        hint = f"ddpmkit ablate {plan['study']} --metrics {metrics}, or ddpmkit status {plan['study']}"
        raise DdpmkitError(f"study '{plan['study']}' has no likelihood that is drawn", hint)
    weights: dict[str, tuple[Array, Array]] = {}
    losses: dict[str, dict[str, list[LossByStep]]] = {split: {} for split in SPLITS}
    knows: dict[str, tuple[Images, Train]] = {}
    for name, draw, train in drawn:
        spec, images = train.spec, load_images(store, registry, train.recipe, train.spec.data)
        tables = spec.tables(registry.rebuild(train.recipe["schedule"]))
        pixels = to_pixels(torch.from_numpy(split_images(images, draw.spec.split)), images.levels)
        found = Draws.from_arrays(store.arrays("draw", draw.id, "draws"), pixels.numpy())
        loss = loss_by_step(found, draw.spec.chain(tables), clip=reported(tables) == "clipped")
        losses[draw.spec.split].setdefault(name, []).append(loss)
        weights.setdefault(name, _weight(spec, train.recipe, registry, tables))
        told = [word for word, said in (("mirrored", spec.flip), ("told the class", spec.conditional)) if said]
        knows.setdefault(", ".join(told), (images, spec))
    at = np.concatenate([found.log_snr for by_cell in losses.values() for all_ in by_cell.values() for found in all_])
    at = at[np.isfinite(at)]  # a block that hardly any draw fell into has no place
    grid = np.linspace(at.min(), at.max(), POINTS)
    optimal: dict[str, dict[str, OptimalLoss]] = {split: {} for split in SPLITS}
    for words, (images, spec) in knows.items():
        for split in SPLITS:
            optimal[split][words] = _optimal(grid, images, spec, split, draws)
    images = next(iter(knows.values()))[0]
    return LossCurves(weights, losses, optimal, _linear(grid, images))


def _drawn(
    plan: Mapping[str, Any], stages: Mapping[str, Any], store: Store
) -> Iterator[tuple[str, Stage[Draw], Stage[Train]]]:
    """The draws that are done, each with its training and a name for the cells that share it."""
    cells: dict[str, list[str]] = {}
    for r in plan["results"]:
        of_nll = stages[r["nll"]]["needs"] if r["nll"] else ()
        for draw in (one for kind, one in of_nll if kind == Draw.kind):
            spec = read_stage(stages[draw]).spec
            # The bound of training images is of the same network, asked in the same way.
            for s in stages.values():
                if (
                    s["kind"] == Draw.kind
                    and s["spec"]["split"] in SPLITS
                    and ["train", spec.train] in s["needs"]
                    and s["spec"]["weights"] == spec.weights
                ):
                    own = cells.setdefault(s["id"], [])
                    own += [] if r["cell"] in own else [r["cell"]]
    groups = list(dict.fromkeys(tuple(group) for group in cells.values()))
    names = [in_common(group) for group in groups]
    for draw, group in cells.items():
        if store.done("draw", draw):
            stage, name = read_stage(stages[draw]), in_common(group)
            # What two groups have in common tells neither.
            yield name if names.count(name) == 1 else group[0], stage, read_stage(stages[stage.spec.train])


def _weight(spec: Train, recipe: Mapping[str, Any], registry: Registry, tables: Tables) -> tuple[Array, Array]:
    """The weight of a training; of a learned sigma at its upper end."""
    sigma = registry.rebuild(recipe["sigma"]) if spec.sigma is not None else None
    log_sigma2, decoder = spec.log_variances(tables, sigma)
    log_sigma2 = np.array([decoder, *log_sigma2[1:]])
    prediction = spec.predicts(recipe, registry, tables)
    return training_weight(tables, registry.rebuild(recipe["weighting"]), prediction, log_sigma2)


def _optimal(grid: Array, images: Images, spec: Train, split: str, draws: int) -> OptimalLoss:
    """The optimal loss of what the networks were asked about, for what they were shown, mirrored images and classes."""
    shown = images.train, split_images(images, split)
    train, asked = (to_pixels(torch.from_numpy(v), images.levels) for v in shown)
    labels = None
    if spec.conditional:
        own, others = (torch.from_numpy(images.labels[s]) for s in ("train", split))
        others = others[bounded_of_training(images)] if split == "train" else others
        labels = torch.cat([own, own]) if spec.flip else own, others
    known = torch.cat([train, train.flip(-1)]) if spec.flip else train
    return optimal_loss(grid, known, asked, labels=labels, draws=draws)


def _linear(grid: Array, images: Images) -> tuple[Array, Array] | None:
    """The eps-loss of data that are Gaussian with the covariance of the training images: mean of s l / (1 + s l)."""
    linear = LinearGaussian.fit(to_pixels(torch.from_numpy(images.train), images.levels))
    if linear is None:
        return None
    power = np.exp(grid)[:, None] * linear.values.numpy()
    return grid, np.asarray((power / (1 + power)).mean(1))
