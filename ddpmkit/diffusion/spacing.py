"""Which steps a strided walk visits."""

from __future__ import annotations

from typing import Literal, get_args

from ddpmkit.errors import DdpmkitError, check_choice

Spacing = Literal["even", "quadratic", "trailing", "openai"]
SPACING_HELP = (  # what a parameter of this type says of itself
    "which steps are visited: even, both ends included; quadratic, more of them where little noise is left; trailing, "
    "T-1 and down by T/K; openai, as improved-diffusion rounds even steps"
)


def spaced(spacing: Spacing, T: int, count: int) -> list[int]:
    """Return ``count`` rising step indices of 0 .. T-1, the last one always T-1.

    even: both ends included, i (T-1) / (count-1) rounded; 21 of 1000 gives 0, 50, ..., 500, ..., 949, 999; one step is
    T-1.
    quadratic: even in the square root, so that steps crowd where little noise is left (Song et al. 2021, DDIM).
    trailing: T - 1, T - 1 - T/count, ... (Lin et al. 2024); 10 of 1000 gives 99, 199, ..., 999.
    openai: as even, but the stride is added up in floating point, as ``space_timesteps`` of improved-diffusion does it
    for one section (Nichol & Dhariwal 2021). Where a sum ends a hair below or above a half, the index is its neighbour:
    21 of 1000 gives 499 where even gives 500.

    Raises:
        DdpmkitError: when there are not that many steps; for one step with openai, which is 0 there; for another name.
    """
    check_choice("spacing", spacing, get_args(Spacing))
    if not 1 <= count <= T:
        raise DdpmkitError(f"{count} sampling steps of a chain with T={T}", f"use 1 to {T} --sampling-steps")
    if spacing == "openai":
        return _openai(T, count)
    if spacing == "trailing":
        return [round((i + 1) * T / count) - 1 for i in range(count)]
    if count == 1:
        return [T - 1]
    if spacing == "even":
        return [round(i * (T - 1) / (count - 1)) for i in range(count)]
    # Squares collide near 0 when many steps are asked for; each index then takes the next free place.
    out = [round((T - 1) * (i / (count - 1)) ** 2) for i in range(count)]
    for i in range(1, count):
        out[i] = max(out[i], out[i - 1] + 1)
    for i in range(count - 1, -1, -1):
        out[i] = min(out[i], T - count + i)
    return out


def _openai(T: int, count: int) -> list[int]:
    if count == 1 and T > 1:
        raise DdpmkitError(
            "one step of spacing 'openai' is step 0, and a walk has to start at the noise end, T-1",
            "use spacing=even, or 2 --sampling-steps and more",
        )
    stride = (T - 1) / max(count - 1, 1)
    at, out = 0.0, []
    for _ in range(count):
        out.append(round(at))
        at += stride  # not i * stride: the rounding errors that add up are part of what is reproduced
    return out
