"""A world of two kinds of image, a dark and a bright one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ddpmkit import Dataset, Images, param


@dataclass(frozen=True)
class Mixture(Dataset):
    """Images of two classes: all pixels normal around +m with probability w, around -m otherwise, rounded to levels.

    Given the class, pixels are independent and the true bits/dim is known: H(x|y)/d = sum_y P(y) H_y. Without it,
    H(x) = H(x|y) + H(y) - H(y|x), which lies between H(x|y) and H(x|y) + H(y), and at the upper end where the two kinds
    do not overlap.
    """

    name = "mixture"
    reference = "Cover & Thomas 2006, Elements of Information Theory, theorem 2.2.1: the chain rule"
    default_features = ("pixels",)
    mean: float = param(0.5, "m, by which the two kinds lie off the middle grey", ge=0, le=1)
    deviation: float = param(0.15, "standard deviation of a pixel given the class", gt=0, le=2)
    weight: float = param(0.5, "w, probability of the bright class 1", gt=0, lt=1)
    size: int = param(2, "height and width", ge=1, le=64)
    levels: int = param(17, "number of grey levels", ge=2, le=256)
    train: int = param(2000, "training images", ge=1)
    validation: int = param(200, "validation images", ge=1)
    test: int = param(1000, "test images", ge=2)
    seed: int = param(0, "key of all draws", ge=0)

    def load(self) -> Images:
        """Draw the images, uint8 (N, 1, size, size), labelled by their class; the truth stands in the notes."""
        import numpy as np

        from ddpmkit.builtin.datasets._worlds import drawn, gaussian_levels

        tables = np.stack([gaussian_levels(m, self.deviation, self.levels) for m in (-self.mean, self.mean)])
        counts, weights = (self.train, self.validation, self.test), np.array([1 - self.weight, self.weight])
        images = drawn(tables, weights, size=self.size, counts=counts, seed=self.seed, labelled=True)
        given, (low, high) = self.bits_per_dim_given_class(), self.bits_per_dim()
        said = f"mixture: the true entropy is {given:.6f} bits/dim given the class, {low:.6f} to {high:.6f} without"
        return replace(images, notes=(said,))

    def bits_per_dim_given_class(self) -> float:
        """Return the entropy of an image whose class is known, divided by its dimensions, in bits."""
        from ddpmkit.builtin.datasets._worlds import entropy_bits, gaussian_levels

        dark, bright = (entropy_bits(gaussian_levels(m, self.deviation, self.levels)) for m in (-self.mean, self.mean))
        return (1 - self.weight) * dark + self.weight * bright

    def bits_per_dim(self) -> tuple[float, float]:
        """Return what the entropy of an image, divided by its dimensions in bits, lies between."""
        import numpy as np

        from ddpmkit.builtin.datasets._worlds import entropy_bits

        given = self.bits_per_dim_given_class()
        return given, given + entropy_bits(np.array([1 - self.weight, self.weight])) / self.size**2
