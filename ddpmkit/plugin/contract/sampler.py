"""What a sampler must give, and where its walk may look."""

from __future__ import annotations

import itertools
import operator
from typing import TYPE_CHECKING, Any

from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.contract.answers import (
    as_array,
    checked_tensor,
    dtype_of,
    not_negative,
    own_copy,
    pair_of,
    refuse,
    shown,
    twice,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ddpmkit.plugin.interfaces import Array, Denoise, Denoised, Noise, Sampler
    from ddpmkit.plugin.tables import Tables


def timesteps(sampler: Sampler, T: int, count: int) -> list[int]:
    """Return the steps that a sampler visits: ``count`` integers that rise within 0 .. T-1, the last one T-1.

    A walk that started elsewhere would take pure noise for a less noisy image.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    import numpy as np

    subject = f"sampler '{sampler.name}' for {count} of {T} steps"

    def ask() -> tuple[Any, ...]:
        with blame("sampler", sampler.name):
            answer = sampler.timesteps(T, count)
        array = as_array(subject, "timesteps", answer)
        if array.shape == (0,):
            refuse(sampler, f"{subject} gives no timesteps")
        if array.dtype.kind not in "iu" or array.ndim != 1:
            refuse(
                sampler,
                f"{subject} gives timesteps of dtype {array.dtype} and shape {array.shape}, not a list of int",
                ROUND,
            )
        return (array.astype(np.int64),)

    (indices,) = twice(subject, "other timesteps", ask)
    times: list[int] = indices.tolist()
    if len(times) != count:
        refuse(sampler, f"{subject} gives {len(times)} timestep{'s' * (len(times) != 1)}")
    for before, after in itertools.pairwise(times):
        if after <= before:
            refuse(sampler, f"{subject} gives timesteps that do not rise: {after} follows {before}")
    if times[0] < 0 or times[-1] >= T:
        wrong = times[0] if times[0] < 0 else times[-1]
        refuse(sampler, f"{subject} gives the timestep {wrong}, outside of 0 .. {T - 1}")
    if times[-1] != T - 1:
        refuse(
            sampler,
            f"{subject} ends its timesteps at {times[-1]}: the walk starts from pure noise, and that is step {T - 1}",
        )
    return times


ROUND = "give int(t) of each, rounded where that is meant"


def kernel(sampler: Sampler, tables: Tables) -> tuple[Array, Array]:
    """Return a sampler's (lambda_t^2, kappa_t), each float64 (T,), the first at least 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    subject = f"sampler '{sampler.name}'"

    def ask() -> tuple[Array, ...]:
        with blame("sampler", sampler.name):
            pair = sampler.kernel(own_copy(tables))
        return pair_of(subject, ("variances", "factors"), pair, (tables.T,))

    variance, factor = twice(subject, "another kernel", ask)
    return not_negative(sampler, subject, "variance", variance), factor


def walk(sampler: Sampler, denoise: Denoise, tables: Tables, noise: Noise) -> Tensor:
    """Return what a sampler draws: like ``noise(0)`` in shape and device, floating, in C order.

    Raises:
        DdpmkitError: when it gives something else, or asks about a step or a batch that is not there.
    """
    subject = f"sampler '{sampler.name}'"
    start = noise(0)
    shape, T = tuple(start.shape), tables.T

    def checked_denoise(x: Tensor, t: int) -> Denoised:
        step = operator.index(t) if hasattr(t, "__index__") and not isinstance(t, float) else -1
        if not 0 <= step < T:
            refuse(
                sampler,
                f"{subject} asks for step {shown(t)}; the steps of its walk are the integers 0 .. {T - 1}",
                "tables is the walk's own chain: count from tables.T - 1 to 0, whatever tables.times says",
            )
        checked_tensor(sampler, f"{subject}, asking for step {t},", x, shape, start.device)
        if x.dtype != start.dtype:
            refuse(sampler, f"{subject}, asking for step {t}, gives {dtype_of(x)}, not {dtype_of(start)}")
        return denoise(x, step)

    samples = sampler.sample(checked_denoise, own_copy(tables), noise)
    checked_tensor(sampler, subject, samples, shape, start.device)
    return samples.contiguous()
