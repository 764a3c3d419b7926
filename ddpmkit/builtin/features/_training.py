"""One step of the training of a shipped classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn


def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor) -> None:
    """Take a step on images in [-1, 1], (B, C, S, S), all shifted alike, by one pixel at most in each direction."""
    size = x.shape[-1]
    across, down = torch.randint(-1, 2, (2,)).tolist()
    shifted = F.pad(x, (1, 1, 1, 1), value=-1.0)[:, :, 1 + down : 1 + size + down, 1 + across : 1 + size + across]
    loss = F.cross_entropy(net(shifted), labels, label_smoothing=0.05)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
