"""The reverse process of a study's trained networks, step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ddpmkit import device as devices
from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.pixels import quantise
from ddpmkit.plots import Strip, watched
from ddpmkit.plugin.contract import walk
from ddpmkit.plugin.registry import Registry
from ddpmkit.randomness import Key, normal, stream_key
from ddpmkit.study.stages import read_stage
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.store import Store
from ddpmkit.study.trained import load_trained

COLUMNS = 12
Shape = tuple[int, ...]


@torch.inference_mode()
def reverse_strips(folder: Path, registry: Registry) -> tuple[list[Strip], int, list[str]]:
    """Sample one image of each cell again and keep x_t along the way.

    Returns (strips, K, column heads); the columns are evenly spread over each cell's own steps, the sample last.

    Raises:
        DdpmkitError: when no cell has been sampled, or a component is not here any more.
    """
    plan, store = files.read_sealed(folder / "plan.json") or {}, Store(folder.parent.parent)
    stages = {s["id"]: s for s in plan["stages"] if s["kind"] == Sample.kind}
    cpu = torch.device("cpu")
    strips, levels, seen_cells = [], 2, set()
    for result in plan["results"]:
        if result["cell"] in seen_cells or not result["sample"] or not store.done("sample", result["sample"]):
            continue
        seen_cells.add(result["cell"])
        stage = read_stage(stages[result["sample"]])
        spec, how = stage.spec, stage.how
        with devices.one_thread():
            sigma, sampler = registry.rebuild(how["sigma"]), registry.rebuild(how["sampler"])
            network = load_trained(store, registry, spec.train, how, ema=spec.ema, sigma=sigma, device=cpu)
            statistics = None if spec.fit is None else store.arrays("fit", spec.fit, "statistics")
            denoise, chain = spec.reverse(network, sampler, statistics)
            levels, shape = network.images.levels, network.images.train.shape[1:]
            key, index = stream_key(spec.seed, "sampling"), torch.zeros(1, dtype=torch.int64)
            seen: dict[int, torch.Tensor] = {}

            def noise(k: int, key: Key = key, index: torch.Tensor = index, shape: Shape = shape) -> torch.Tensor:
                return normal(key, index, shape, k)

            last = walk(sampler, watched(denoise, seen), chain, noise)
        shown = np.linspace(chain.T - 1, 0, min(COLUMNS - 1, chain.T)).round().astype(int)
        if not set(shown.tolist()) <= seen.keys():
            continue  # a sampler that skips steps of its own has no walk to show
        row = [float(chain.input_scale[t]) * seen[int(t)] for t in shown] + [last]
        strips.append(Strip(result["cell"], torch.cat([quantise(x, levels) for x in row]).numpy()))
    if not strips:
        raise DdpmkitError(f"no cell of study '{plan['study']}' has samples", "ddpmkit ablate --metrics fd,nll")
    across = min(len(s.images) for s in strips)
    strips = [Strip(s.label, s.images[:across]) for s in strips]
    heads = [f"{1 - i / (across - 1):.2g} T" for i in range(across - 1)] + ["x0"]
    heads[0] = "x_T"
    return strips, levels, heads
