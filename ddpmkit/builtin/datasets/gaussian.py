"""A world of independent Gaussian pixels, rounded to grey levels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ddpmkit import Dataset, Images, param


@dataclass(frozen=True)
class Gaussian(Dataset):
    """Independent normal pixels in [-1, 1], rounded to grey levels: the true bits/dim is known exactly.

    P(level k) = Phi((e_{k+1} - m) / s) - Phi((e_k - m) / s), the edges e half way between levels, the ends with their
    tails; bits/dim = -sum_k P(k) log2 P(k).
    """

    name = "gaussian"
    reference = "Cover & Thomas 2006, Elements of Information Theory, ch. 2: entropy of a discrete variable"
    default_features = ("pixels",)
    mean: float = param(0.0, "mean of a pixel, black is -1 and white is 1", ge=-1, le=1)
    deviation: float = param(0.4, "standard deviation of a pixel", gt=0, le=2)
    size: int = param(2, "height and width", ge=1, le=64)
    levels: int = param(17, "number of grey levels", ge=2, le=256)
    train: int = param(2000, "training images", ge=1)
    validation: int = param(200, "validation images", ge=1)
    test: int = param(1000, "test images", ge=2)
    seed: int = param(0, "key of all draws", ge=0)

    def load(self) -> Images:
        """Draw the images, uint8 (N, 1, size, size); the truth stands in the notes."""
        import numpy as np

        from ddpmkit.builtin.datasets._worlds import drawn, gaussian_levels

        table = gaussian_levels(self.mean, self.deviation, self.levels)[None]
        counts = (self.train, self.validation, self.test)
        images = drawn(table, np.ones(1), size=self.size, counts=counts, seed=self.seed, labelled=False)
        return replace(images, notes=(f"gaussian: the true entropy is {self.bits_per_dim():.6f} bits/dim",))

    def bits_per_dim(self) -> float:
        """Return the entropy of an image divided by its dimensions, in bits."""
        from ddpmkit.builtin.datasets._worlds import entropy_bits, gaussian_levels

        return entropy_bits(gaussian_levels(self.mean, self.deviation, self.levels))
