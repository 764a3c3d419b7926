"""Sampling: noise keyed by sample, the network on one fixed, padded micro-batch, images quantised once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddpmkit.diffusion.gaussian import Coefficients, Prediction, to_x0
from ddpmkit.diffusion.tables import Array, Tables
from ddpmkit.errors import DdpmkitError, Diverged, Interrupted
from ddpmkit.pixels import quantise
from ddpmkit.plugin.interfaces import Sampler
from ddpmkit.randomness import normal, stream_key


def denoiser(net: nn.Module, tables: Tables, prediction: Prediction, device: torch.device) -> Callable[..., Tensor]:
    """Return predict_x0(x, t) -> x0hat (not clipped), t an index of ``tables`` or an int64 tensor (B,)."""
    c = Coefficients.of(tables, device)

    def predict_x0(x: Tensor, t: int | Tensor) -> Tensor:
        steps = t if isinstance(t, Tensor) else torch.full((len(x),), t, dtype=torch.int64, device=x.device)
        scale = c.input_scale[steps].reshape(-1, *([1] * (x.dim() - 1)))
        return to_x0(c, prediction, x, steps, net(scale * x, c.network_time[steps]).float())

    return predict_x0


@torch.inference_mode()
def sample(
    predict_x0: Callable[..., Tensor],
    tables: Tables,
    log_sigma2: Array,
    sampler: Sampler,
    *,
    count: int,
    shape: tuple[int, ...],
    levels: int,
    seed: int | str,
    micro_batch: int,
    device: torch.device,
    on_progress: Callable[[int], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Draw ``count`` images, uint8 levels (count, C, H, W) on the CPU.

    Image i depends on the seed and on i alone: its noise is keyed by (i, position counted from the noise end), and the
    network always runs on ``micro_batch`` images at once, the last batch padded, since floating point differs between
    batch sizes. ``tables`` is the chain that is walked, already strided.

    Raises:
        Diverged: when an image is not finite; its number is named.
        Interrupted: when asked to stop.
        DdpmkitError: when the sampler gives another shape.
    """
    key = stream_key(seed, "sampling")
    drawn = []
    for first in range(0, count, micro_batch):
        index = torch.arange(first, first + micro_batch, device=device)

        def predict(x: Tensor, t: int, first: int = first) -> Tensor:
            if should_stop():
                raise Interrupted(f"stopped after {first} of {count} images")
            return predict_x0(x, t)

        def noise(k: int, index: Tensor = index) -> Tensor:
            return normal(key, index, shape, k)

        x = sampler.sample(predict, tables, log_sigma2, noise)
        if x.shape != (micro_batch, *shape):
            raise DdpmkitError(f"sampler '{sampler.name}' gave shape {tuple(x.shape)}, not {(micro_batch, *shape)}")
        keep = x[: count - first]
        bad = ~torch.isfinite(keep).flatten(1).all(1)
        if bool(bad.any()):
            raise Diverged(f"image {first + int(bad.nonzero()[0])} is not finite")
        drawn.append(quantise(keep, levels).cpu())
        on_progress(min(first + micro_batch, count))
    return torch.cat(drawn)
