"""The pixels themselves: the plainest feature space."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from ddpmkit import Array, DdpmkitError, Features, Images, Levels

MOST = 4096  # above, one covariance takes more memory and time than it can be worth


@dataclass(frozen=True)
class Pixels(Features):
    """All pixels in grey levels, as one vector; for small images."""

    name = "pixels"
    reference = "no network, no fit: the image space itself"

    def label(self) -> str:
        """Return the label behind ``FD-``."""
        return "pixels"

    def fingerprint(self) -> str:
        """Return a hash of the definition."""
        return hashlib.sha256(f"pixels/{self.version}".encode()).hexdigest()

    def load(self, data: Images) -> Callable[[Levels], Array]:
        """Return levels (N, C, H, W) -> float64 (N, C H W).

        Raises:
            DdpmkitError: for images of more than 4096 values.
        """
        import numpy as np

        size = data.train[0].size
        if size > MOST:
            raise DdpmkitError(
                f"features 'pixels' are for images of at most {MOST} values, not {size}", "use --features pca:k=64"
            )

        def extract(levels: Levels) -> Array:
            return levels.reshape(len(levels), size).astype(np.float64)

        return extract
