"""The likelihood of any network at all, trained here or elsewhere: a callable, images, and the names of the choices.

This is a door for users, and the one place of the evaluation that turns names into components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.bound_terms import Decoder, checked_decoder
from ddpmkit.diffusion.denoise import Denoiser
from ddpmkit.diffusion.objective import check_possible
from ddpmkit.diffusion.tables_for import Array, Tables, decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood import checks
from ddpmkit.likelihood.ask import beside_the_middle, draw
from ddpmkit.likelihood.control_variates import LinearGaussian
from ddpmkit.likelihood.vlb import Bound, bound
from ddpmkit.pixels import to_pixels
from ddpmkit.plugin.interfaces import Prediction, Schedule, Sigma

MIDDLE = 8192  # evaluations for the steps from t=2 on, where no budget is given
OFF_LEVEL = 1e-3  # of the distance of two levels, by which a float pixel may miss its level

Plain = np.ndarray[Any, Any]


def bits_per_dim(
    predict: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor | Plain,
    *,
    schedule: str | Schedule | Tables | Sequence[float] | Plain = "linear",
    timesteps: int = 1000,
    sigma: str | Sigma | Sequence[float] | Plain = "beta-tilde",
    prediction: str | Prediction = "eps",
    levels: int = 256,
    decoder: Decoder = "cdf",
    decoder_variance: str | float = "tilde2",
    evals: int | None = None,
    full: bool = False,
    clip: bool = False,
    seed: int = 0,
    micro_batch: int = 64,
) -> Bound:
    """Return the variational bound on the NLL of ``x0`` in bits/dim, its Monte-Carlo standard error and its terms.

    [ L_T + sum_{t=2..T} L_{t-1} + L_0 ] / (d ln 2), Ho et al. 2020, eq. 5. With only ``x0`` at hand, the proposal over
    steps and the control variates are shaped on these same images under noise that enters nothing else: given the
    images the estimate stays unbiased.

    Args:
        predict: ``predict(xt, t)``, xt float32 (B, ...) and t int64 (B,), 0 = least noisy, gives what ``prediction``
            says, shaped like xt.
        x0: Images (N, ...): integer levels 0 .. K-1, or pixels in [-1, 1] on the levels -1 + 2 k / (K - 1).
        schedule: Spec such as ``cosine:s=0.01``, a schedule object, T betas, or tables; ``predict`` of a strided chain
            is told the t of the full one.
        timesteps: T, for a schedule by name or as an object.
        sigma: Spec such as ``beta``, a sigma object, or T variances sigma_t^2.
        prediction: ``eps``, ``x0``, ``v``, ``mu``, or a prediction object.
        levels: Number K of grey levels.
        decoder: ``cdf``, ``continuous`` (a density; pixels may then be any number), ``cdf-tanh`` or ``softmax``.
        decoder_variance: Of p(x_0 | x_1): ``tilde2``, ``beta1``, or a number.
        evals: Budget in network evaluations, all included; by default 8192 besides pilot and decoder.
        full: Every step of every image instead, T evaluations an image. Fewer than 16 images are each swept several
            times, so that their noise can be told; the padded passes have room for it.
        clip: Clip x0hat to [-1, 1], as published numbers mostly do.
        seed: Keys of all noise.
        micro_batch: Images per call of ``predict``, always.

    Raises:
        DdpmkitError: when a name, a shape or a value does not fit.
        Diverged: when ``predict`` gives a value that is not finite.
    """
    if evals is not None and full:
        raise DdpmkitError("evals and full are both given", "a full sweep takes T evaluations an image; drop evals")
    checked_decoder(decoder)
    checks.whole("micro_batch", micro_batch, 1, "as in micro_batch=64")
    if evals is not None:
        checks.whole("evals", evals, 1, "as in evals=8192")
    images = pixels_of(x0, levels, decoder)
    tables = _tables(schedule, timesteps)
    log_sigma2, variance = _log_variance(sigma, tables), _decoder_log_variance(decoder_variance, tables)
    denoiser = Denoiser.of(tables, _prediction(prediction, tables), images.device)
    times = torch.from_numpy(tables.times).to(images.device)

    def predict_x0(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        out = predict(xt, times[t])
        if not isinstance(out, Tensor) or out.shape != xt.shape:
            got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise DdpmkitError(
                f"predict gives {got} for xt of shape {tuple(xt.shape)}",
                "it must give a tensor shaped like xt, as in lambda xt, t: net(xt, t).sample",
            )
        return denoiser.read(xt, t, out.float())

    draws = draw(
        predict_x0,
        tables,
        images=images,
        pilot=images,
        levels=levels,
        evaluations=None if full else beside_the_middle(tables.T, len(images)) + MIDDLE if evals is None else evals,
        full=full,
        seed=seed,
        micro_batch=micro_batch,
        # From two images a dimension on; with fewer, it would follow the very images that it is to help with.
        linear=LinearGaussian.fit(images) if not full and len(images) > 2 * images[0].numel() else None,
    )
    return bound(draws, tables, log_sigma2, variance, decoder, levels=levels, clip=clip)


@dataclass(frozen=True, eq=False)
class _Betas:
    """Betas that were given as numbers, in the shape of a schedule."""

    values: Array
    name: str = "betas"

    def steps(self, T: int) -> tuple[Array, Array]:
        return np.sqrt(np.maximum(1 - self.values, 0.0)), self.values

    def prior_variance(self, T: int) -> float:
        return 1.0


def pixels_of(x0: Tensor | Plain, levels: int, decoder: Decoder) -> Tensor:
    """Return images as float32 pixels in [-1, 1], on their levels to the last bit.

    Raises:
        DdpmkitError: when they are not images, or not on the levels.
    """
    images = torch.as_tensor(x0)
    if images.dim() < 2 or len(images) == 0:
        raise DdpmkitError(
            f"x0 has shape {tuple(images.shape)}, and images are (N, ...)", "one image: x0[None], of shape (1, C, H, W)"
        )
    checks.whole("levels", levels, 2, "256 for 8-bit images")
    if not images.is_floating_point():
        low, high = int(images.min()), int(images.max())
        if low < 0:
            raise DdpmkitError(
                f"x0 has levels {low} .. {high}", "grey levels count from 0; pixels in [-1, 1] are floats"
            )
        if high >= levels:
            raise DdpmkitError(f"x0 has levels {low} .. {high}, and K = {levels}", f"levels={high + 1} or more")
        return to_pixels(images, levels)
    if not bool(torch.isfinite(images).all()):
        raise DdpmkitError("x0 has values that are not finite", "look at the data")
    if decoder == "continuous":
        return images.float()
    step = 2 / (levels - 1)
    place = (images.double() + 1) / step
    level = place.round().clamp(0, levels - 1)
    off = float((place - level).abs().max())
    if off > OFF_LEVEL:
        raise DdpmkitError(
            f"x0 is not on {levels} grey levels in [-1, 1]: it runs from {float(images.min()):g} to "
            f"{float(images.max()):g}, and is up to {off:.2g} of a level off",
            f"give integer levels 0 .. {levels - 1}, or pixels -1 + 2 k / {levels - 1}, or another levels=",
        )
    return to_pixels(level, levels)


def _tables(schedule: str | Schedule | Tables | Sequence[float] | Plain, timesteps: int) -> Tables:
    if isinstance(schedule, Tables):
        return schedule
    if isinstance(schedule, str):
        from ddpmkit.plugin.registry import Registry

        schedule = cast(Schedule, Registry().build("schedule", schedule))
    if isinstance(schedule, Schedule):
        checks.whole("timesteps", timesteps, 2, "as in timesteps=1000")
        return tables_for(schedule, timesteps)
    betas = checks.numbers("betas", schedule, "one beta a step, or a schedule's name: ddpmkit ls schedule")
    if betas.ndim != 1:
        raise DdpmkitError(f"betas have shape {betas.shape}, not (T,)", "give one beta a step, or a schedule's name")
    return tables_for(cast(Schedule, _Betas(betas)), len(betas))


def _prediction(prediction: str | Prediction, tables: Tables) -> Prediction:
    if isinstance(prediction, str):
        from ddpmkit.plugin.registry import Registry

        prediction = cast(Prediction, Registry().build("prediction", prediction))
    if not isinstance(prediction, Prediction):
        raise DdpmkitError(
            f"prediction must be a name or a prediction, got {prediction!r:.60}",
            "eps, x0, v, mu, or a prediction object",
        )
    check_possible(prediction, tables)
    return prediction


def _log_variance(sigma: str | Sigma | Sequence[float] | Plain, tables: Tables) -> Array:
    if isinstance(sigma, str):
        from ddpmkit.plugin.registry import Registry

        sigma = cast(Sigma, Registry().build("sigma", sigma))
    if isinstance(sigma, Sigma):
        return fixed_log_variance(sigma, tables)
    variance = checks.numbers("sigma", sigma, "T variances, or a name: ddpmkit ls sigma")
    if variance.shape != (tables.T,) or not (np.isfinite(variance[1:]) & (variance[1:] > 0)).all():
        raise DdpmkitError(
            f"sigma must be {tables.T} variances above 0, got shape {variance.shape}", "or a name: ddpmkit ls sigma"
        )
    out = np.zeros(tables.T)  # the first is the decoder's own affair
    out[1:] = np.log(variance[1:])
    return out


def _decoder_log_variance(choice: str | float, tables: Tables) -> float:
    if isinstance(choice, str):
        return decoder_log_variance(tables, choice)
    variance = checks.numbers("decoder_variance", choice, "tilde2, beta1, or a number")
    if variance.ndim or not (np.isfinite(variance) and variance > 0):
        raise DdpmkitError(f"decoder_variance must be one number above 0, got {choice}", "tilde2, beta1, or a number")
    return float(np.log(variance))
