"""A small frozen classifier of MNIST; its penultimate layer is the feature space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ddpmkit import Array, Features, Images, Levels
from ddpmkit.builtin.features._shipped import check_images, shipped

WEIGHTS = Path(__file__).with_name("mnist.safetensors")
SHA256 = "b05e787bd8d365afcbd5473205e102f67922cd7f7c01e5e4e11e97bad5f1cab0"


@dataclass(frozen=True)
class MnistNet(Features):
    """64 features of a frozen MNIST classifier, trained on the training split and shipped with its hash.

    For 28x28 grey images with 256 levels only. ``python -m ddpmkit.builtin.features.mnist_train mnist.npz`` makes the
    weights.
    """

    name = "mnist"
    reference = "ddpmkit/builtin/features/mnist_train.py; the idea of classifier features: Heusel et al. 2017"
    made_for = ((1, 28, 28), 256)

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
        from ddpmkit.builtin.features._mnistnet import MnistClassifier

        check_images(self, data)
        return shipped(MnistClassifier(), WEIGHTS, SHA256, 256)
