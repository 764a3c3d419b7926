"""The reverse process of a study's trained networks, step by step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ddpmkit import device as devices
from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.pixels import quantise
from ddpmkit.plugin.contract import walk
from ddpmkit.plugin.registry import Registry
from ddpmkit.randomness import Key, normal, stream_key
from ddpmkit.study.stages import read_stage
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.store import Store
from ddpmkit.study.strips import Strips
from ddpmkit.study.trained import load_trained

if TYPE_CHECKING:
    from torch import Tensor

    from ddpmkit.diffusion.tables_for import Tables
    from ddpmkit.plugin.interfaces import Levels

COLUMNS = 12
Shape = tuple[int, ...]


@torch.inference_mode()
def reverse_strips(folder: Path, registry: Registry) -> Strips:
    """Sample one image of each cell again and keep x_t along the way.

    The columns are evenly spread over each cell's own steps, the sample last.

    Raises:
        DdpmkitError: when no cell has been sampled, or a component is not here any more.
    """
    plan, store = files.read_sealed(folder / "plan.json") or {}, Store(folder.parent.parent)
    stages = {s["id"]: s for s in plan["stages"] if s["kind"] == Sample.kind}
    cpu = torch.device("cpu")
    walked: dict[str, tuple[Tables, dict[int, Tensor], Tensor]] = {}
    levels, seen_cells = 2, set()
    for result in plan["results"]:
        if result["cell"] in seen_cells or not result["sample"] or not store.done("sample", result["sample"]):
            continue
        seen_cells.add(result["cell"])
        stage = read_stage(stages[result["sample"]])
        spec, recipe = stage.spec, stage.recipe
        with devices.one_thread():
            sigma, sampler = registry.rebuild(recipe["sigma"]), registry.rebuild(recipe["sampler"])
            network = load_trained(store, registry, spec.train, recipe, ema=spec.ema, sigma=sigma, device=cpu)
            statistics = None if spec.fit is None else store.arrays("fit", spec.fit, "statistics")
            denoise, chain = spec.reverse(network, sampler, statistics)
            levels, shape = network.images.levels, network.images.train.shape[1:]
            key, index = stream_key(spec.seed, "sampling"), torch.zeros(1, dtype=torch.int64)
            if (label_of := spec.label_of(network)) is not None:
                denoise = partial(denoise, y=label_of(index))
            seen: dict[int, Tensor] = {}

            def noise(k: int, key: Key = key, index: torch.Tensor = index, shape: Shape = shape) -> torch.Tensor:
                return normal(key, index, shape, k)

            last = walk(sampler, _watched(denoise, seen), chain, noise)
        walked[result["cell"]] = chain, seen, last
    rows: dict[str, Levels] = {}
    steps = min((chain.T for chain, _, _ in walked.values()), default=0)
    for cell, (chain, seen, last) in walked.items():
        shown = np.linspace(chain.T - 1, 0, min(COLUMNS - 1, steps)).round().astype(int)
        if not set(shown.tolist()) <= seen.keys():
            continue  # a sampler that skips steps of its own has no walk to show
        row = [float(chain.input_scale[t]) * seen[int(t)] for t in shown] + [last]
        rows[cell] = torch.cat([quantise(x, levels) for x in row]).numpy()
    if not rows:
        raise DdpmkitError(f"no cell of study '{plan['study']}' has samples", "ddpmkit ablate --metrics fd,nll")
    between = min(COLUMNS - 1, steps)
    heads = ("x_T", *(f"{1 - i / between:.2g} T" for i in range(1, between)), "x0")
    return Strips(rows, heads, levels)


def _watched(denoise: Callable[..., Any], seen: dict[int, Tensor]) -> Callable[..., Any]:
    """Return the denoiser, writing down every x_t that it is shown, by step index."""

    def looking(x: Tensor, t: int) -> Any:
        seen[t] = x
        return denoise(x, t)

    return looking
