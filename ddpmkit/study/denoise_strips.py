"""What a study's networks make of real images at several noise levels: x_t above x0hat, beside the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ddpmkit import device as devices
from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.pixels import quantise, to_pixels
from ddpmkit.plugin.registry import Registry
from ddpmkit.randomness import normal, stream_key
from ddpmkit.study.stages import read_stage
from ddpmkit.study.stages.train import Train
from ddpmkit.study.store import Store
from ddpmkit.study.strips import Strips
from ddpmkit.study.trained import load_trained
from ddpmkit.text.naming import in_common

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Levels
    from ddpmkit.study.trained import Trained

FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of T


@torch.inference_mode()
def denoise_strips(folder: Path, registry: Registry, shown: Sequence[int] = (0,), *, seed: int = 0) -> Strips:
    """Show each training of a study test images with noise on them: a row x_t, and below it x0hat, clipped.

    x_t = m_t x0 + S_t eps with the same eps for an image at every t and in every training; a chain that explodes is
    shown divided by sqrt(m_t^2 + S_t^2). The first column is the truth. Of the trainings of a cell the first seed's is
    asked, at the average that the cell samples with.

    Args:
        folder: The study's.
        registry: Where its components come from.
        shown: Which test images.
        seed: Of the noise.

    Raises:
        DdpmkitError: when no training is done, there is no such image, or data or a component are not here any more.
    """
    plan, store = files.read_sealed(folder / "plan.json") or {}, Store(folder.parent.parent)
    rows: dict[str, Levels] = {}
    levels = 2
    for name, network in _networks(plan, store, registry):
        images, levels = network.images, network.images.levels
        for i in shown:
            if not 0 <= i < len(images.test):
                raise DdpmkitError(f"there is no test image {i}; there are {len(images.test)}", "use --images 0")
            label = f"{name}, image {i}" if len(shown) > 1 else name
            noisy, guessed = _of_image(network, i, seed)
            rows[f"{label}: x_t"] = noisy
            rows[f"{label}: x0hat"] = guessed
    if not rows:
        raise DdpmkitError(f"study '{plan['study']}' has no training that is done", f"ddpmkit status {plan['study']}")
    return Strips(rows, ("x0", *(f"{f:.2g} T" for f in FRACTIONS)), levels)


def _networks(plan: Mapping[str, Any], store: Store, registry: Registry) -> Iterator[tuple[str, Trained]]:
    """The networks of the cells, each once, under what its cells have in common."""
    stages = {s["id"]: s for s in plan["stages"] if s["kind"] == Train.kind}
    rates = {c["label"]: c["settings"]["ema"] for c in plan["cells"]}
    firsts: dict[str, str] = {}
    for result in plan["results"]:
        if store.done("train", result["train"]):
            firsts.setdefault(result["cell"], result["train"])
    groups: dict[tuple[str, float], list[str]] = {}
    for cell, training in firsts.items():
        groups.setdefault((training, rates[cell]), []).append(cell)
    names = [in_common(group) for group in groups.values()]
    for (training, rate), group, name in zip(groups, groups.values(), names, strict=True):
        recipe = read_stage(stages[training]).recipe
        sigma = registry.rebuild(recipe["sigma"]) if "sigma" in recipe else registry.build("sigma", "beta-tilde")
        cpu = torch.device("cpu")
        # What two groups have in common tells neither.
        yield (
            name if names.count(name) == 1 else group[0],
            load_trained(store, registry, training, recipe, ema=rate, sigma=sigma, device=cpu),
        )


def _of_image(network: Trained, i: int, seed: int) -> tuple[Levels, Levels]:
    """x_t and x0hat of test image i at every fraction of T as grey levels, the truth in front of both."""
    images, chain = network.images, network.tables
    truth = to_pixels(torch.from_numpy(images.test[i : i + 1]), images.levels)
    t = torch.tensor([max(round(f * chain.T) - 1, 0) for f in FRACTIONS])
    eps = normal(stream_key(seed, "noise"), torch.tensor([i]), tuple(truth.shape[1:]))

    def at(table: Any) -> torch.Tensor:
        return torch.from_numpy(np.asarray(table))[t].float().reshape(-1, *[1] * (truth.ndim - 1))

    xt = at(chain.signal) * truth + at(np.sqrt(chain.noise2)) * eps
    labels = network.labels("test")
    with devices.one_thread():
        guessed, _ = network.predict(chain)(xt, t, None if labels is None else labels[[i] * len(t)])
    rows = (torch.cat([truth, at(chain.input_scale) * xt]), torch.cat([truth, guessed]))
    noisy, clean = (quantise(row, images.levels).numpy() for row in rows)
    return noisy, clean
