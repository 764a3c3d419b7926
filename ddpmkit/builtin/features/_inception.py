"""torch-fidelity's network behind levels -> features; imported only when features are taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from ddpmkit import Array, Levels

LAYER = "2048"
BATCH = 16  # the network always sees this many images, padded: floating point differs between batch sizes


def load_network(path: Path, levels: int) -> Callable[[Levels], Array]:
    """Return levels 0 .. K-1, (N, 1 or 3, H, W) -> float64 (N, 2048)."""
    network = FeatureExtractorInceptionV3("inception", [LAYER], feature_extractor_weights_path=str(path))
    network.eval().requires_grad_(False)
    # Level k of K as one of 256, by rounding; the identity for K = 256.
    table = np.rint(np.arange(levels) * (255 / (levels - 1))).astype(np.uint8)

    def extract(images: Levels) -> Array:
        out = [np.empty((0, 2048))]
        with torch.inference_mode():
            for first in range(0, len(images), BATCH):
                chunk = torch.from_numpy(table[images[first : first + BATCH]])
                batch = torch.zeros(BATCH, 3, *images.shape[2:], dtype=torch.uint8)
                batch[: len(chunk)] = chunk  # one channel becomes three equal ones
                out.append(network(batch)[0][: len(chunk)].double().numpy())
        return np.concatenate(out)

    return extract
