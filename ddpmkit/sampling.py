"""Sampling: noise keyed by sample, the network on one fixed, padded micro-batch, images quantised once.

Algorithm 2 itself, the walk, is a sampler: builtin/samplers/ancestral.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from ddpmkit.diffusion.labels import LabelOf
from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.errors import DdpmkitError, Diverged, Interrupted
from ddpmkit.kernels import fused
from ddpmkit.pixels import quantise
from ddpmkit.plugin.contract import walk
from ddpmkit.plugin.interfaces import Denoised, Sampler
from ddpmkit.randomness import normal, seed_libraries, stream_key
from ddpmkit.recording import replayed

Denoise = Callable[..., Denoised]  # denoise(x, t), and denoise(x, t, y) where samples have labels


def with_sigma(predict: Callable[..., tuple[Tensor, Tensor | None]], sigmas: Array | None) -> Denoise:
    """Return denoise(x, t, y=None), t an int; ``sigmas`` are those of ``step_sigmas``, None where learned."""
    table = None if sigmas is None else sigmas.tolist()

    def denoise(x: Tensor, t: int, y: Tensor | None = None) -> Denoised:
        steps = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
        x0, log_sigma2 = predict(x, steps) if y is None else predict(x, steps, y)
        if table is not None:
            return Denoised(x0, table[t])
        if log_sigma2 is None:
            raise DdpmkitError("a learned sigma needs a network that gives it", "train with --sigmas learned-range")
        return Denoised(x0, torch.exp(log_sigma2 / 2))

    return denoise


@torch.inference_mode()
def sample(
    denoise: Denoise,
    tables: Tables,
    sampler: Sampler,
    *,
    count: int,
    shape: tuple[int, ...],
    levels: int,
    seed: int | str,
    micro_batch: int,
    device: torch.device,
    label_of: LabelOf | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    on_asked: Callable[[int], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Draw ``count`` images, uint8 levels (count, C, H, W) on the CPU.

    Image i depends on the seed and on i alone: its noise is keyed by (i, position counted from the noise end), and the
    network always runs on ``micro_batch`` images at once, the last batch padded, since floating point differs between
    batch sizes. ``tables`` is the chain that is walked, already strided.
    With ``label_of``, see diffusion/labels.py, ``denoise`` is told the label of each image too. ``on_asked`` is told
    after each batch how often ``denoise`` was asked for its images, padding apart: a sampler may ask twice a step.

    Raises:
        Diverged: when an image is not finite; its number is named.
        Interrupted: when asked to stop.
        DdpmkitError: when the sampler breaks its contract.
    """
    key = stream_key(seed, "sampling")

    def units(index: Tensor, position: Tensor) -> Tensor:
        return normal(key, index, shape, position)

    # One kernel needs no recording, which each walk would make and prove anew: its key is a number.
    unit: Callable[[Tensor, Tensor], Tensor] = units if fused(device) else replayed(units, "the noise of a walk")
    drawn = []
    for first in range(0, count, micro_batch):
        index = torch.arange(first, first + micro_batch, device=device)
        told = () if label_of is None else (label_of(index),)
        asked: Counter[int] = Counter()  # a corrector may ask more than once at one step

        def watched(
            x: Tensor, t: int, first: int = first, asked: Counter[int] = asked, told: tuple[Tensor, ...] = told
        ) -> Denoised:
            if should_stop():
                raise Interrupted(f"stopped after {first} of {count} images")
            again = f"/{asked[t]}" if asked[t] else ""
            asked[t] += 1
            seed_libraries(seed, "sampling", f"{first}/{t}{again}")  # for a network or a sampler that draws by itself
            return denoise(x, t, *told)

        def noise(k: int, index: Tensor = index) -> Tensor:
            return unit(index, torch.full_like(index, k))

        seed_libraries(seed, "sampling", first)
        x = walk(sampler, watched, tables, noise)
        keep = x[: count - first]
        bad = ~torch.isfinite(keep).flatten(1).all(1)
        if bool(bad.any()):
            raise Diverged(f"image {first + int(bad.nonzero()[0])} is not finite")
        on_asked(asked.total() * len(keep))
        drawn.append(quantise(keep, levels).cpu())
        on_progress(min(first + micro_batch, count))
    return torch.cat(drawn)
