"""Principal components of the pixels: no network, the same numbers everywhere."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from ddpmkit import Array, DdpmkitError, Features, Images, Levels, param


def most_components(data: Images) -> int:
    """Return how many components there may be at most: N training images, less their mean, span N - 1 dimensions."""
    return min(len(data.train) - 1, int(data.train[0].size))


def small_features(data: Images, most: int = 16) -> str:
    """Return the hint that names features which any images have: up to ``most`` components, or else the pixels."""
    k = min(most, most_components(data))
    return f"use --features pca:k={k}" if k else "use --features pixels"


@dataclass(frozen=True)
class Pca(Features):
    """The first k principal components of the training images' pixels, in grey levels.

    y = V_k^T (x - mean), V from the SVD of the centred training images.
    """

    name = "pca"
    reference = "Pearson 1901; a network-free feature space for small images"
    fitted: ClassVar[bool] = True  # the axes come from the data, so stored statistics alone can't stand for a reference
    k: int = param(16, "number of components", ge=1)

    def label(self) -> str:
        """Return the label behind ``FD-``."""
        return f"pca{self.k}"

    def fingerprint(self) -> str:
        """Return a hash of the definition; the components follow from the data set, which is hashed by itself."""
        return hashlib.sha256(f"pca/{self.version}/k={self.k}".encode()).hexdigest()

    def load(self, data: Images) -> Callable[[Levels], Array]:
        """Fit the components on the training images; return levels (N, C, H, W) -> float64 (N, k).

        Raises:
            DdpmkitError: when k is above the rank of the centred images; where counting does not show it, from the
                first call of what is returned.
        """
        import numpy as np

        count, size = len(data.train), data.train[0].size
        self._check(most_components(data), count, size)  # what a plan can afford, which looks at no pixel

        @functools.cache  # a plan loads the extractor and takes no features
        def fitted() -> tuple[Array, Array]:
            pixels = data.train.reshape(count, size).astype(np.float64)
            # The eigenvectors of the D x D covariance are those of the SVD, and D is small where N is large.
            values, vectors = np.linalg.eigh(np.cov(pixels.T))
            # Below this an eigenvalue is rounding, and its axis as well.
            self._check(int((values > size * np.finfo(np.float64).eps * values[-1]).sum()), count, size)
            return pixels.mean(0), vectors[:, ::-1][:, : self.k]

        def extract(levels: Levels) -> Array:
            mean, axes = fitted()
            return np.asarray((levels.reshape(len(levels), -1).astype(np.float64) - mean) @ axes)

        return extract

    def _check(self, rank: int, count: int, size: int) -> None:
        """Refuse axes along which the training images do not vary: they are rounding noise."""
        if self.k > rank:
            raise DdpmkitError(
                f"pca: k={self.k} components can't be had from {count} training images "
                f"(validation images taken off) of {size} values each, which span {rank} dimensions",
                f"use --features pca:k={rank}" if rank else "use --features pixels",
            )
