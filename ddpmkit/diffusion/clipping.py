"""What is done to the estimate of x0 before a sampler uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from ddpmkit.errors import check_choice

if TYPE_CHECKING:
    from torch import Tensor

Clip = Literal["static", "dynamic", "none"]
QUANTILE = 0.995  # Saharia et al. 2022's p for dynamic thresholding


def clipped(x0: Tensor, clip: Clip) -> Tensor:
    """Return x0hat as it is (none), clamped to [-1, 1] (static), or scaled down by its own quantile (dynamic).

    dynamic: s = max(1, quantile of |x0hat| at 0.995), image by image; x0hat is clamped to [-s, s] and divided by s
    (Saharia et al. 2022, arXiv 2205.11487, section 2.3). Shapes (B, ...).

    Raises:
        DdpmkitError: for another name.
    """
    check_choice("clip", clip, get_args(Clip))
    if clip == "none":
        return x0
    if clip == "static":
        return x0.clamp(-1.0, 1.0)
    import torch

    s = torch.quantile(x0.flatten(1).abs(), QUANTILE, dim=1).clamp(min=1.0)
    s = s.reshape(-1, *([1] * (x0.dim() - 1)))
    return torch.maximum(torch.minimum(x0, s), -s) / s
