"""The scaling by 1000/T of schedules that run between two betas, and its guard."""

from __future__ import annotations

from ddpmkit.errors import DdpmkitError


def scaled_endpoints(name: str, beta_1: float, beta_T: float, T: int) -> tuple[float, float]:
    """Return (beta_1, beta_T) * 1000/T, so that alpha-bar reaches the same end whatever T is.

    Nichol & Dhariwal 2021 (arXiv 2102.09672), code: get_named_beta_schedule. ``name`` is the schedule's, for the error.

    Raises:
        DdpmkitError: when an endpoint reaches 1; the smallest T that works is named.
    """
    scale = 1000 / T
    if max(beta_1, beta_T) * scale >= 1:
        smallest = int(1000 * max(beta_1, beta_T)) + 1
        raise DdpmkitError(
            f"schedule '{name}' at T={T}: the endpoints scaled by 1000/T give beta = "
            f"{max(beta_1, beta_T) * scale:g}, and every beta must be below 1",
            f"use T >= {smallest}, a smaller beta_T, or schedule 'cosine', which works at any T",
        )
    return beta_1 * scale, beta_T * scale
