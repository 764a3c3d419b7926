"""Which steps a strided walk visits."""

from __future__ import annotations

from ddpmkit.errors import DdpmkitError


def even(T: int, count: int) -> list[int]:
    """Return ``count`` indices spread evenly over 0 .. T-1, both ends included, rounded (OpenAI's spacing).

    50 of 1000 gives 0, 20, 41, ..., 979, 999. A single step starts at T-1, where the noise is.

    Raises:
        DdpmkitError: when there are not that many steps.
    """
    if not 1 <= count <= T:
        raise DdpmkitError(f"{count} sampling steps of a chain with T={T}", f"use 1 to {T} --sampling-steps")
    if count == 1:
        return [T - 1]
    return [round(i * (T - 1) / (count - 1)) for i in range(count)]
