"""The MNIST classifier as a torch module; imported only when features are taken."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn


class MnistClassifier(nn.Module):
    """Four convolutions, a 64-unit layer whose output is the feature vector, and ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.conv4 = nn.Conv2d(32, 48, 3, stride=2, padding=1)
        self.hidden = nn.Linear(48 * 4 * 4, 64)
        self.logits = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) in [-1, 1] -> (B, 64), before the nonlinearity."""
        h = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            h = F.relu(conv(h))
        out: Tensor = self.hidden(h.flatten(1))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) in [-1, 1] -> (B, 10) logits."""
        out: Tensor = self.logits(F.relu(self.features(x)))
        return out
