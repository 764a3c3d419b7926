"""Which steps a strided walk visits."""

from __future__ import annotations

from typing import Literal

from ddpmkit.errors import DdpmkitError

Spacing = Literal["even", "quadratic", "trailing"]


def spaced(spacing: Spacing, T: int, count: int) -> list[int]:
    """Return ``count`` rising step indices of 0 .. T-1, the last one always T-1.

    even: both ends included, rounded; 50 of 1000 gives 0, 20, 41, ..., 979, 999 (OpenAI's spacing).
    quadratic: even in the square root, so that steps crowd where little noise is left (Song et al. 2021, DDIM).
    trailing: T - 1, T - 1 - T/count, ... (Lin et al. 2024); 10 of 1000 gives 99, 199, ..., 999.

    Raises:
        DdpmkitError: when there are not that many steps.
    """
    if not 1 <= count <= T:
        raise DdpmkitError(f"{count} sampling steps of a chain with T={T}", f"use 1 to {T} --sampling-steps")
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
