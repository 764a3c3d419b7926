"""A world in which a pixel has two values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ddpmkit import Dataset, Images, param


@dataclass(frozen=True)
class TwoPoint(Dataset):
    """Independent pixels, each white with probability p, else black: the true bits/dim is the entropy of a coin.

    bits/dim = -p log2 p - (1 - p) log2 (1 - p), whatever the number of grey levels: only the first and last occur.
    """

    name = "two-point"
    reference = "Cover & Thomas 2006, Elements of Information Theory, eq. 2.5: the binary entropy"
    default_features = ("pixels",)
    p: float = param(0.5, "probability of a white pixel", gt=0, lt=1)
    size: int = param(2, "height and width", ge=1, le=64)
    levels: int = param(2, "number of grey levels", ge=2, le=256)
    train: int = param(2000, "training images", ge=1)
    validation: int = param(200, "validation images", ge=1)
    test: int = param(1000, "test images", ge=2)
    seed: int = param(0, "key of all draws", ge=0)

    def load(self) -> Images:
        """Draw the images, uint8 (N, 1, size, size); the truth stands in the notes."""
        import numpy as np

        from ddpmkit.builtin.datasets._worlds import drawn

        table = np.zeros((1, self.levels))
        table[0, 0], table[0, -1] = 1 - self.p, self.p
        counts = (self.train, self.validation, self.test)
        images = drawn(table, np.ones(1), size=self.size, counts=counts, seed=self.seed, labelled=False)
        return replace(images, notes=(f"two-point: the true entropy is {self.bits_per_dim():.6f} bits/dim",))

    def bits_per_dim(self) -> float:
        """Return the entropy of an image divided by its dimensions, in bits."""
        import math

        return -self.p * math.log2(self.p) - (1 - self.p) * math.log2(1 - self.p)
