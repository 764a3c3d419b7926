"""scikit-learn's handwritten digits: 1797 real 8x8 images with 17 grey levels, no download."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from ddpmkit import Dataset, Images, Outline

SPLIT_SEED = 0


@dataclass(frozen=True)
class Digits(Dataset):
    """Handwritten digits, 8x8, 17 grey levels, from scikit-learn; 900 train, 100 validation, 797 test.

    The split is numpy's default_rng(0).permutation(1797): its first 1000 are the training images, the last 100 of
    those set aside as validation, and the other 797 are the test images.
    """

    name = "digits"
    reference = "Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI; sklearn.datasets.load_digits"
    default_features = ("digits", "pca:k=16")

    def load(self) -> Images:
        """Return the images, uint8 levels 0 .. 16, (N, 1, 8, 8)."""
        import numpy as np

        pixels, digits = _parsed()
        order = np.random.default_rng(SPLIT_SEED).permutation(len(pixels))
        images, classes = pixels[order], digits[order]  # copies, each time anew
        return Images(
            train=images[:900],
            validation=images[900:1000],
            test=images[1000:],
            levels=17,
            labels={"train": classes[:900], "validation": classes[900:1000], "test": classes[1000:]},
        )

    def outline(self) -> Outline:
        """Return what :meth:`load` gives, in short; a test holds the two together."""
        return Outline(
            fingerprint="319898f1d6167fe214b2ce939ecef2d6352cf5ec8a5a356bdd16e0490f479b76",
            shape=(1, 8, 8),
            counts=(900, 100, 797),
            levels=17,
            classes=10,
            least=0,
            most=16,
            second_moment=0.7174153645833333,
        )


@functools.cache
def _parsed() -> tuple[Any, Any]:
    """Return all images and their labels as scikit-learn has them, in a text file that takes long to read."""
    import numpy as np
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64)
