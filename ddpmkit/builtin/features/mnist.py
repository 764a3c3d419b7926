"""A small frozen classifier of MNIST; its penultimate layer is the feature space."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Features, Images

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Array, Levels

WEIGHTS = Path(__file__).with_name("mnist.safetensors")
SHA256 = "b05e787bd8d365afcbd5473205e102f67922cd7f7c01e5e4e11e97bad5f1cab0"
BATCH = 256  # the network always sees this many images, padded: floating point differs between batch sizes


@dataclass(frozen=True)
class MnistNet(Features):
    """64 features of a frozen MNIST classifier, trained on the training split and shipped with its hash.

    For 28x28 grey images with 256 levels only. ``python -m ddpmkit.builtin.features.mnist_train mnist.npz`` makes the
    weights.
    """

    name = "mnist"
    reference = "ddpmkit/builtin/features/mnist_train.py; the idea of classifier features: Heusel et al. 2017"

    def label(self) -> str:
        """Return the label behind ``FD-``."""
        return "mnist"

    def fingerprint(self) -> str:
        """Return the SHA-256 of the weights file."""
        return SHA256

    def load(self, data: Images) -> Callable[[Levels], Array]:
        """Return levels (N, 1, 28, 28) -> float64 (N, 64).

        Raises:
            DdpmkitError: for images of another kind, or when the weights file is not the one that was shipped.
        """
        import numpy as np
        import torch
        from safetensors.torch import load

        from ddpmkit.builtin.features._mnistnet import MnistClassifier
        from ddpmkit.pixels import to_pixels

        if data.train.shape[1:] != (1, 28, 28) or data.levels != 256:
            raise DdpmkitError(
                f"features 'mnist' are for 28x28 images with 256 levels, not {data.train.shape[1:]} with {data.levels}",
                "use --features pca:k=16",
            )
        try:
            blob = WEIGHTS.read_bytes()
        except OSError as err:
            raise DdpmkitError(f"can't read {WEIGHTS.name}: {err.strerror}", "install ddpmkit again") from None
        if hashlib.sha256(blob).hexdigest() != SHA256:
            raise DdpmkitError(f"{WEIGHTS.name} is not the file that was shipped", "install ddpmkit again")
        net = MnistClassifier()
        net.load_state_dict(load(blob))  # stored in half precision, used in single
        net.eval()

        def extract(levels: Levels) -> Array:
            out = [np.empty((0, 64))]
            with torch.inference_mode():
                for first in range(0, len(levels), BATCH):
                    chunk = torch.from_numpy(np.ascontiguousarray(levels[first : first + BATCH]))
                    padded = torch.zeros(BATCH, 1, 28, 28, dtype=torch.uint8)
                    padded[: len(chunk)] = chunk
                    out.append(net.features(to_pixels(padded, 256))[: len(chunk)].double().numpy())
            return np.concatenate(out)

        return extract
