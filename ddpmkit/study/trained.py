"""A trained network out of the store: for later stages, for pictures, for the likelihood, and for whoever asks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddpmkit import device as devices
from ddpmkit import files
from ddpmkit.diffusion.denoise import Predict, predictor
from ddpmkit.diffusion.tables_for import Tables, log_bounds
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Images, Prediction, Sigma
from ddpmkit.plugin.registry import Registry
from ddpmkit.recording import replayed
from ddpmkit.study.compiled import prepare_evaluation
from ddpmkit.study.data import load_images
from ddpmkit.study.identity import hold
from ddpmkit.study.planning import network
from ddpmkit.study.stages.of_network import OfNetwork
from ddpmkit.study.stages.train import Train
from ddpmkit.study.store import Store
from ddpmkit.study.work import Work
from ddpmkit.training import checkpoint


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network and all that gives its output a meaning.

    Attributes:
        id: the training.
        spec: how it was trained.
        images: the data it was trained on.
        net: one average of its weights, on ``device``, in eval mode.
        tables: the full chain.
        sigma: the reverse variance; where it is a learned one, the network has a second output for it.
        prediction: what the network's output estimates.
        device: where it is.
        classes: how many classes it is told of; None where it was trained without labels.
    """

    id: str
    spec: Train
    images: Images
    net: torch.nn.Module
    tables: Tables
    sigma: Sigma
    prediction: Prediction
    device: torch.device
    classes: int | None = None

    def predict(self, chain: Tables, precision: str = "fp32") -> Predict:
        """Return what gives (x0hat, log sigma^2) of (xt, t, y=None), t an index of the full ``chain`` or a strided one.

        y are labels, int64 (B,), of a network that was trained with some; without, it is told that there are none.
        On CUDA, outside of autograd, the network is recorded once a shape and replayed, with the same bits.
        """
        told = self.device, self.sigma, precision, self.classes
        replays = replayed(predictor(self.net, chain, self.prediction, *told), "the network")

        def predict(
            xt: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, torch.Tensor | None]:
            answer: tuple[torch.Tensor, torch.Tensor | None] = replays(xt, t, y)
            return answer

        return predict

    def labels(self, split: str) -> torch.Tensor | None:
        """Return the labels of a split, int64 (N,) on the device; None where the network was trained without."""
        return None if self.classes is None else torch.from_numpy(self.images.labels[split]).to(self.device)


def trained_for(spec: OfNetwork, w: Work, *, data: str | None = None) -> Trained:
    """Return the network that a stage runs.

    Raises:
        DdpmkitError: when it was trained on other data than ``data``, the hash of those that the stage looks at.
    """
    recipe, sigma = w.stage.recipe, w.component("sigma")
    found = load_trained(w.store, w.registry, spec.train, recipe, ema=spec.ema, sigma=sigma, device=w.device)
    if data not in (None, found.spec.data):
        raise DdpmkitError(f"training {spec.train[:12]} is of other data", "run the study again")
    prepare_evaluation(
        w, found.net, found.id, found.images, found.classes, batch=spec.batch, precision=spec.eval_precision
    )
    return found


def load_trained(
    store: Store,
    registry: Registry,
    training: str,
    recipe: Mapping[str, Any],
    *,
    ema: float,
    sigma: Sigma,
    device: torch.device,
) -> Trained:
    """Return a trained network.

    Args:
        store: Where the training is.
        registry: Where its components come from.
        training: Its id.
        recipe: The records of its data set, schedule and backbone, as its stage and its status have them.
        ema: The rate of the average whose weights are taken.
        sigma: The reverse variance; a learned one must be the one that the network learned.
        device: Where to.

    Raises:
        DdpmkitError: when the training is not whole, or its data or a component is not what it was.
    """
    spec = store.read_spec(Train, training)
    images = load_images(store, registry, recipe, spec.data)
    classes = spec.classes(images)
    net = network(registry.rebuild(recipe["backbone"]), images, learned=sigma.learned, classes=classes)
    folder = store.folder("train", training)
    found = checkpoint.newest(folder / "ckpt")
    if found is None or found.step != spec.steps:
        # A network of fewer steps must not stand in for this one: the training is to be finished again.
        with contextlib.suppress(FileNotFoundError):
            files.quarantine(folder / "out")
        raise DdpmkitError(f"the last checkpoint of training {training[:12]} is damaged", "run the study again")
    net.load_state_dict(checkpoint.under(found.ema, repr(ema)))
    net = devices.place(net, device).eval()
    tables = spec.tables(registry.rebuild(recipe["schedule"]))
    prediction = spec.predicts(recipe, registry, tables)
    if spec.sigma is not None and "sigma" in recipe:
        hold("sigma", spec.sigma, *log_bounds(registry.rebuild(recipe["sigma"]), tables))
    return Trained(training, spec, images, net, tables, sigma, prediction, device, classes)


def find_training(store: Store, text: str) -> str:
    """Return the id of a finished training whose id begins with ``text``.

    Raises:
        DdpmkitError: when there is none, or more than one.
    """
    ids = store.stages("train")
    found = [i for i in ids if i.startswith(text)] if text else []
    if len(found) != 1:
        problem = "no training" if not found else f"{len(found)} trainings"
        hint = f"the column train_stage of a study's results.csv has them; {len(ids)} are in {store.root}"
        raise DdpmkitError(f"{problem} in the store begins with '{text}'", hint)
    if not store.done("train", found[0]):
        raise DdpmkitError(f"training {found[0][:12]} is not finished", "run its study again")
    return found[0]


def status_of_training(store: Store, training: str) -> dict[str, Any]:
    """Return the status of a training, which holds how its components are found.

    Raises:
        DdpmkitError: when it is damaged.
    """
    status = store.status("train", training)
    if "how" not in status:
        path = store.folder("train", training) / "status.json"
        raise DdpmkitError(f"'{path}' is damaged or lost", "run the study again: it is written from the plan")
    return status


def which_average(spec: Train, ema: float | None) -> float:
    """Return the rate of the average to take: the one that is asked for, or the only one that was kept.

    Raises:
        DdpmkitError: when it was not kept, or several were and none is asked for.
    """
    kept = ", ".join(map(repr, spec.emas))
    if ema is None and len(spec.emas) > 1:
        raise DdpmkitError(f"this training kept several averages: {kept}", f"--ema {spec.emas[-1]!r}")
    rate = spec.emas[0] if ema is None else ema
    if rate not in spec.emas:
        raise DdpmkitError(f"the average of rate {rate!r} was not kept", f"kept: {kept}")
    return rate


def open_training(
    out: str | Path,
    training: str,
    *,
    ema: float | None = None,
    registry: Registry | None = None,
    device: str = "auto",
) -> Trained:
    """Return a trained network of a results folder, for notebooks and scripts.

    Args:
        out: The results folder.
        training: The first digits of the training's id; ``train_stage`` in a study's results.csv.
        ema: The rate of the average; needed where several were kept.
        registry: The components to choose from.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        DdpmkitError: when there is no such training, or it is not whole.
    """
    store, registry = Store(files.home(out)), registry or Registry()
    found = find_training(store, training)
    recipe, spec = status_of_training(store, found)["how"], store.read_spec(Train, found)
    sigma = registry.rebuild(recipe["sigma"]) if "sigma" in recipe else registry.build("sigma", "beta-tilde")
    return load_trained(
        store, registry, found, recipe, ema=which_average(spec, ema), sigma=sigma, device=devices.resolve(device)
    )
