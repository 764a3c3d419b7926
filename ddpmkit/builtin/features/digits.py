"""A small frozen classifier of scikit-learn's digits; its penultimate layer is the feature space."""

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

WEIGHTS = Path(__file__).with_name("digits.safetensors")
SHA256 = "2c427a2d33ed3742d4a8dd74efce5810e7048c97f546ea54173df174eb074ab2"
BATCH = 256  # the network always sees this many images, padded: floating point differs between batch sizes


@dataclass(frozen=True)
class DigitsNet(Features):
    """64 features of a frozen digit classifier, trained on the digits' training split and shipped with its hash.

    For 8x8 grey images with 17 levels only. ``python -m ddpmkit.builtin.features.digits_train`` makes the weights.
    """

    name = "digits"
    reference = "ddpmkit/builtin/features/digits_train.py; the idea of classifier features: Heusel et al. 2017"

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
        import numpy as np
        import torch

        from ddpmkit.builtin.features._digitsnet import DigitsClassifier
        from ddpmkit.pixels import to_pixels

        if data.train.shape[1:] != (1, 8, 8) or data.levels != 17:
            raise DdpmkitError(
                f"features 'digits' are for 8x8 images with 17 levels, not {data.train.shape[1:]} with {data.levels}",
                "use --features pca:k=16",
            )
        from safetensors.torch import load

        try:
            blob = WEIGHTS.read_bytes()
        except OSError as err:
            raise DdpmkitError(f"can't read {WEIGHTS.name}: {err.strerror}", "install ddpmkit again") from None
        if hashlib.sha256(blob).hexdigest() != SHA256:
            raise DdpmkitError(f"{WEIGHTS.name} is not the file that was shipped", "install ddpmkit again")
        net = DigitsClassifier()
        net.load_state_dict(load(blob))
        net.eval()

        def extract(levels: Levels) -> Array:
            out = []
            with torch.inference_mode():
                for first in range(0, len(levels), BATCH):
                    chunk = torch.from_numpy(np.ascontiguousarray(levels[first : first + BATCH]))
                    padded = torch.zeros(BATCH, 1, 8, 8, dtype=torch.uint8)
                    padded[: len(chunk)] = chunk
                    out.append(net.features(to_pixels(padded, 17))[: len(chunk)].double().numpy())
            return np.concatenate(out)

        return extract
