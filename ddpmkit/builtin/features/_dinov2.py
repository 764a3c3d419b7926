"""DINOv2 behind levels -> features; imported only when features are taken."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ddpmkit import Array, DdpmkitError, Levels
from ddpmkit.builtin.features._vit import HEAD, VisionTransformer

SIZE = 224
BATCH = 8  # the network always sees this many images, padded: floating point differs between batch sizes
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
# The names in the published .safetensors files -> ours.
RENAMED = (
    (r"^embeddings\.cls_token$", "cls"),
    (r"^embeddings\.position_embeddings$", "positions"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.attention\.attention\.", r"blocks.\1."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.out."),
    (r"^encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.scale\2"),
    (r"^encoder\.layer\.(\d+)\.mlp\.", r"blocks.\1."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
)


def load_network(blob: bytes, name: str, levels: int) -> Callable[[Levels], Array]:
    """Return levels 0 .. K-1, (N, 1 or 3, H, W) -> float64 (N, width).

    Raises:
        DdpmkitError: when the file holds another network.
    """
    foreign = DdpmkitError(f"'{name}' holds no DINOv2 network", "use model.safetensors of facebook/dinov2-small")
    try:
        tensors = load(blob)
    except SafetensorError:
        raise foreign from None
    state = {_renamed(key): value.float() for key, value in tensors.items() if not key.endswith("mask_token")}
    if not {"cls", "positions", "patch.weight"} <= set(state) or state["cls"].shape[-1] % HEAD:
        raise foreign
    depth = 1 + max((int(k.split(".")[1]) for k in state if k.startswith("blocks.")), default=-1)
    network = VisionTransformer(state["cls"].shape[-1], depth, state["positions"].shape[1])
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise foreign from None
    network.eval().requires_grad_(False)
    mean, sd = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, SD))

    def extract(images: Levels) -> Array:
        out = [np.empty((0, network.cls.shape[-1]))]
        with torch.inference_mode():
            for first in range(0, len(images), BATCH):
                chunk = torch.from_numpy(np.ascontiguousarray(images[first : first + BATCH])).float() / (levels - 1)
                batch = torch.zeros(BATCH, 3, SIZE, SIZE)
                batch[: len(chunk)] = _resized(chunk)  # one channel becomes three equal ones
                out.append(network((batch - mean) / sd)[: len(chunk)].double().numpy())
        return np.concatenate(out)

    return extract


def _renamed(key: str) -> str:
    for pattern, ours in RENAMED:
        key, count = re.subn(pattern, ours, key.removeprefix("dinov2."))
        if count:
            return key
    return key


def _resized(x: Tensor) -> Tensor:
    """To 224 x 224, bicubic, antialiased where it shrinks; (B, C, H, W) in [0, 1]."""
    return F.interpolate(x, size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)
