"""Initial weights keyed by (seed, parameter path, shape): a layer starts the same in every network that has it.

A network draws its weights while it is built, one after another, so a layer added in front would change all the others.
Here the random fills are watched as they happen and then drawn again, each parameter from a generator of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ddpmkit.randomness import stream_seed

_RANDOM = ("aten::uniform_", "aten::normal_")
_CONSTANT = ("aten::zero_", "aten::fill_", "aten::copy_")


Op = tuple[Any, tuple[Any, ...], dict[str, Any], tuple[Any, ...]]  # function, arguments, keywords, geometry of the view


class _Watch(TorchDispatchMode):
    """Record, for each storage, the random fill and the in-place operations that followed it, parts of it included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: dict[int, list[Op]] = {}
        self.alive: list[Tensor] = []  # so that no address is used twice while we watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().split(".")[0]
        if name.endswith("_") and args and isinstance(args[0], Tensor):
            tensor = args[0]
            where = tensor.untyped_storage().data_ptr()
            if _whole(tensor) and name in (*_RANDOM, *_CONSTANT):
                self.ops[where] = []  # whatever was there before is gone
            if name in _RANDOM or where in self.ops:
                view = (tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
                self.ops.setdefault(where, []).append((func, args[1:], kwargs or {}, view))
            self.alive.append(tensor.detach())
        return out


def _whole(tensor: Tensor) -> bool:
    """Whether a tensor is all of its storage."""
    return bool(tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes())


def initialise(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network on the CPU with weights keyed by (seed, path, shape); constants stay as the author set them.

    A parameter that was made from a finished random tensor, and not filled in place, or that shares its storage with
    another, keeps the draw it got under the seed. The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]), _Watch() as watch:
        torch.manual_seed(stream_seed(seed, "init", ""))
        net = build()
    with torch.no_grad():
        for path, parameter in net.named_parameters():
            if not _whole(parameter):
                continue
            generator = torch.Generator().manual_seed(stream_seed(seed, "init", f"{path}/{tuple(parameter.shape)}"))
            for func, args, kwargs, view in watch.ops.get(parameter.untyped_storage().data_ptr(), ()):
                keyed = {**kwargs, "generator": generator} if func.name().split(".")[0] in _RANDOM else kwargs
                func(parameter.as_strided(*view), *args, **keyed)
    return net
