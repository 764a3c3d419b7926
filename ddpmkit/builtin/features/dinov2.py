"""DINOv2 features from a file that the user brings and names by its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ddpmkit import Array, DdpmkitError, Features, Images, Levels, param


@dataclass(frozen=True)
class DinoV2(Features):
    """The class token of a DINOv2 network (small, base or large), from a .safetensors file with a stated SHA-256.

    Grey images are given three equal channels; images are resized to 224 x 224. Nothing is downloaded.
    """

    name = "dinov2"
    reference = "Oquab et al. 2023, arXiv 2304.07193; as a feature space: Stein et al. 2023, arXiv 2306.04675"
    resize: ClassVar[str] = "bicubic antialiased to 224"
    path: str = param("", "model.safetensors of facebook/dinov2-small, -base or -large", locates=True)
    sha256: str = param("", "the SHA-256 of that file, which the file is checked against and results are labelled by")

    def label(self) -> str:
        """Return the label behind ``FD-``, with the beginning of the hash: the networks are several."""
        return f"dinov2{self.sha256[:8]}"

    def fingerprint(self) -> str:
        """Return the SHA-256 that the file must have.

        Raises:
            DdpmkitError: when none was given.
        """
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise DdpmkitError(
                "dinov2 needs the SHA-256 of its file", "write dinov2:path=FILE:sha256=HASH; see sha256sum"
            )
        return self.sha256

    def load(self, data: Images) -> Callable[[Levels], Array]:
        """Return levels (N, 1 or 3, H, W) -> float64 (N, 384, 768 or 1024).

        Raises:
            DdpmkitError: when the file is missing, another one, or no DINOv2 network.
        """
        expected = self.fingerprint()
        if not self.path or not Path(self.path).is_file():
            raise DdpmkitError(f"there is no file '{self.path}'", "write dinov2:path=FILE:sha256=HASH")
        blob = Path(self.path).read_bytes()
        digest = hashlib.sha256(blob).hexdigest()
        if digest != expected:
            raise DdpmkitError(f"'{self.path}' is another file: SHA-256 {digest}, not {expected}", "fetch it again")
        if data.train.shape[1] not in (1, 3):
            raise DdpmkitError(
                f"features 'dinov2' are for images of 1 or 3 channels, not {data.train.shape[1]}", "use pca:k=64"
            )
        from ddpmkit.builtin.features._dinov2 import load_network

        return load_network(blob, self.path, data.levels)
