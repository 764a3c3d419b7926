"""A small frozen classifier of scikit-learn's digits; its penultimate layer is the feature space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ddpmkit import Array, Features, Images, Levels
from ddpmkit.builtin.features._shipped import check_images, shipped

WEIGHTS = Path(__file__).with_name("digits.safetensors")
SHA256 = "2c427a2d33ed3742d4a8dd74efce5810e7048c97f546ea54173df174eb074ab2"


@dataclass(frozen=True)
class DigitsNet(Features):
    """64 features of a frozen digit classifier, trained on the digits' training split and shipped with its hash.

    For 8x8 grey images with 17 levels only. ``python -m ddpmkit.builtin.features.digits_train`` makes the weights.
    """

    name = "digits"
    reference = "ddpmkit/builtin/features/digits_train.py; the idea of classifier features: Heusel et al. 2017"
    made_for = ((1, 8, 8), 17)

    def label(self) -> str:
        """Return the label behind ``FD-``."""
        return "digits"

    def fingerprint(self) -> str:
        """Return the SHA-256 of the weights file."""
        return SHA256

    def load(self, data: Images) -> Callable[[Levels], Array]:
        """Return levels (N, 1, 8, 8) -> float64 (N, 64).

        Raises:
            DdpmkitError: for images of another kind, or when the weights file is not the one that was shipped.
        """
        from ddpmkit.builtin.features._digitsnet import DigitsClassifier

        check_images(self, data)
        return shipped(DigitsClassifier(), WEIGHTS, SHA256, 17)
