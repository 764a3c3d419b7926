"""How long a gradient may be: at most a fixed norm, or at most so many times its own running norm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MEMORY = 0.98  # beta of the running norm; that of the reference


class GradientClip:
    """Scales a gradient down to a largest global norm.

    A fixed norm is another constraint for every scale of the loss, so that a weighting which is a constant times
    another one trains otherwise. With a ratio r the norm is held against the running mean of those before, which knows
    no scale: g_hat = g min(1, r gamma / ||g||), gamma = m / (1 - beta^n), m <- beta m + (1 - beta) ||g_hat||, where n
    counts the steps before; the first gradient is not clipped. AdaGC, arXiv 2502.11034, with one norm over all tensors,
    and Adam's correction for the start in place of a phase with a fixed norm.

    Args:
        norm: The fixed largest norm.
        ratio: Above 1, or the running norm could never grow; None for the fixed norm.
        device: Where the gradients are.
    """

    def __init__(self, norm: float, ratio: float | None, device: torch.device) -> None:
        self.norm, self.ratio = norm, ratio
        self.mean, self.weight = torch.zeros((), device=device), torch.zeros((), device=device)  # m, and 1 - beta^n

    def clip(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Scale the gradients in place; return their norm before, without waiting for the device."""
        if self.ratio is None:
            fixed: Tensor = nn.utils.clip_grad_norm_(parameters, self.norm)
            return fixed
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        # Kernels alone, no number of the host's: the step may be recorded. Before the first gradient it is 0 / 0.
        limit = (self.ratio * self.mean / self.weight).nan_to_num(nan=torch.inf)
        torch._foreach_mul_(gradients, (limit / norm).clamp(max=1.0))
        self.mean.mul_(MEMORY).add_(torch.minimum(norm, limit), alpha=1 - MEMORY)
        self.weight.mul_(MEMORY).add_(norm > 0, alpha=1 - MEMORY)  # a gradient of zero says nothing of the scale
        return norm

    def state(self) -> dict[str, Tensor]:
        """Return what a step changes; of a fixed norm nothing."""
        return {} if self.ratio is None else {"mean": self.mean, "weight": self.weight}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put it back."""
        for name, value in self.state().items():
            value.copy_(state[name])
