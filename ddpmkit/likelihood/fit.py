"""What a fitted sigma or decoder variance needs of a trained network: means over training images at every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from ddpmkit.diffusion.bound_terms import decoder_nll
from ddpmkit.diffusion.gaussian import Coefficients, eps_from_x0, q_sample
from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.errors import Diverged, Interrupted
from ddpmkit.likelihood import checks
from ddpmkit.randomness import normal, stream_key

DECODER_IMAGES = 1024  # at most; L_0 is one step, and every pixel counts


@torch.inference_mode()
def fit_statistics(
    predict: Callable[..., tuple[Tensor, Tensor | None]],
    tables: Tables,
    *,
    images: Tensor,
    labels: Tensor | None = None,
    draws: int,
    levels: int,
    seed: int | str,
    micro_batch: int,
    on_progress: Callable[[float], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, np.ndarray[Any, Any]]:
    """Return a trained network's second moments at every step, means over images, noise and pixels, float64.

    ``eps_squared``, ``error`` and ``error_clipped``, each (T,): of the predicted noise, of the squared x0-error, and of
    the one with x0hat clipped to [-1, 1]. ``decoder_log_variance``, (): the log-variance that makes the mean decoder
    term L_0 of the images smallest, x0hat clipped.

    Args:
        predict: ``predict(xt, t)`` with t int64 (B,), giving (x0hat not clipped, anything).
        tables: The full chain.
        images: Float32 pixels (N, C, H, W) of training images, in a fixed random order; step t sees ``draws`` of them.
        labels: Of the images, int64 (N,), where ``predict(xt, t, y)`` is to be told them.
        draws: Images at each step.
        levels: Number K of grey levels.
        seed: Key of the noise.
        micro_batch: Images per network pass, always; the last pass is padded.
        on_progress: Told the finished fraction.
        should_stop: Asked before every pass.

    Raises:
        Diverged: when the network gives a value that is not finite.
        Interrupted: when asked to stop.
        DdpmkitError: when there are no images, or a count is no number above 0.
    """
    checks.images("images", images)
    for name, value in (("draws", draws), ("micro_batch", micro_batch)):
        checks.whole(name, value, 1, f"as in {name}=64")
    checks.whole("levels", levels, 2, "256 for 8-bit images")
    c, device, T = Coefficients.of(tables, images.device), images.device, tables.T
    key = stream_key(seed, "fit")
    first = torch.arange(min(len(images), DECODER_IMAGES), device=device)
    # All steps in order, then the decoder's images once more at t=1; rows are (step, image).
    t = torch.cat([torch.arange(T, device=device).repeat_interleave(draws), torch.zeros_like(first)])
    which = torch.cat([torch.arange(T * draws, device=device) % len(images), first])
    sums = torch.zeros(3, T, dtype=torch.float64)
    residuals = []
    for start in range(0, len(t), micro_batch):
        if should_stop():
            raise Interrupted("stopped during the fit")
        rows = torch.arange(start, start + micro_batch, device=device).clamp(max=len(t) - 1)
        x0, steps = images[which[rows]], t[rows]
        xt = q_sample(c, x0, steps, normal(key, rows, tuple(x0.shape[1:])))
        told = () if labels is None else (labels[which[rows]],)
        hat, _ = predict(xt, steps, *told)
        eps = eps_from_x0(c, xt, steps, hat)
        keep = min(micro_batch, len(t) - start)
        moments = torch.stack([_mean_square(v[:keep]) for v in (eps, hat - x0, hat.clamp(-1, 1) - x0)]).cpu()
        if not bool(torch.isfinite(moments).all()):
            raise Diverged(
                f"x0hat is not finite at step {int(steps[int((~torch.isfinite(moments)).any(0).nonzero()[0])])}"
            )
        sweep = max(0, min(keep, T * draws - start))  # how many of these rows belong to the sweep over all steps
        sums.index_add_(1, steps[:sweep].cpu(), moments[:, :sweep])
        if sweep < keep:
            residuals.append((x0[sweep:keep].cpu().double(), hat[sweep:keep].clamp(-1, 1).cpu().double()))
        on_progress(min(1.0, (start + micro_batch) / len(t)))
    x0s, hats = (torch.cat(parts) for parts in zip(*residuals, strict=True))
    means = (sums / draws).numpy()
    return {
        "eps_squared": means[0],
        "error": means[1],
        "error_clipped": means[2],
        "decoder_log_variance": np.asarray(best_decoder_log_variance(x0s, hats, levels)),
    }


def best_decoder_log_variance(x0: Tensor, mean: Tensor, levels: int) -> float:
    """Return the log-variance of the smallest mean decoder NLL, for sigma from a hundredth of a bin to 1.

    1 is half the range of the pixels: where x0hat is further off than that, the minimum lies beyond, and 1 is given.
    """

    def nll(log_variance: float) -> float:
        return float(decoder_nll(x0, mean, math.exp(log_variance / 2), levels).mean())

    low, high = 2 * math.log(0.01 / (levels - 1)), 0.0
    # The decoder's NLL has one minimum in sigma, but far from it it is flat: start Brent's search from a grid's best.
    grid: Array = np.linspace(low, high, 33)
    best = int(np.argmin([nll(v) for v in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    return float(minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def _mean_square(x: Tensor) -> Tensor:
    return x.double().square().flatten(1).mean(1)
