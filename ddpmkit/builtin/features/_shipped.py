"""A frozen classifier whose weights come with the package: read, verified, and run on one fixed batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import Array, DdpmkitError, Features, Images, Levels
from ddpmkit.builtin.features.pca import small_features

if TYPE_CHECKING:
    from torch import nn


BATCH = 256  # the network always sees this many images, padded: floating point differs between batch sizes


def check_images(features: Features, data: Images) -> None:
    """Refuse images that a classifier was not made for.

    Raises:
        DdpmkitError: for another size or another number of grey levels.
    """
    if features.made_for is None:
        return
    shape, levels = features.made_for
    if data.train.shape[1:] != shape or data.levels != levels:
        raise DdpmkitError(
            f"features '{features.name}' are for {shape[1]}x{shape[2]} images with {levels} levels, "
            f"not {data.train.shape[1:]} with {data.levels}",
            small_features(data),
        )


def shipped(net: nn.Module, weights: Path, sha256: str, levels: int) -> Callable[[Levels], Array]:
    """Return uint8 levels (N, C, H, W) -> float64 (N, D), the network's ``features`` in single precision.

    Raises:
        DdpmkitError: when the weights file can't be read, or is not the one that was shipped.
    """
    import numpy as np
    import torch
    from safetensors.torch import load

    from ddpmkit import to_pixels

    try:
        blob = weights.read_bytes()
    except OSError as err:
        raise DdpmkitError(f"can't read {weights.name}: {err.strerror}", "install ddpmkit again") from None
    if hashlib.sha256(blob).hexdigest() != sha256:
        raise DdpmkitError(f"{weights.name} is not the file that was shipped", "install ddpmkit again")
    net.load_state_dict(load(blob))  # half precision on disk becomes single here
    net.eval()
    run: Any = net  # a classifier that gives its penultimate layer as ``features``

    def extract(images: Levels) -> Array:
        out = []
        with torch.inference_mode():
            for first in range(0, max(len(images), 1), BATCH):
                chunk = torch.from_numpy(np.ascontiguousarray(images[first : first + BATCH]))
                batch = torch.zeros(BATCH, *images.shape[1:], dtype=torch.uint8)
                batch[: len(chunk)] = chunk
                out.append(run.features(to_pixels(batch, levels))[: len(chunk)].double().numpy())
        return np.concatenate(out)

    return extract
