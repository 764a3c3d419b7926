"""A recorder without a GPU: it writes down what torch does, and does it again to the same tensors.

It is to a CPU what a CUDA graph is to a GPU: every operation of a run is kept with its arguments, tensors where they
are and Python values as they were, and a replay does the same operations to the same memory. Reading a number of a
tensor (``.item()``, ``float``, ``bool``) is refused, as it is while a GPU records. It proves code, and saves no time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpmkit.recording import RecordingError, Run, same

# An operation, its arguments, and where its new tensors are: their places among what it returns, and they themselves.
Op = tuple[Any, tuple[Any, ...], dict[str, Any], list[tuple[int, Tensor]]]


class _Writer(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[Op] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.name() == "aten::_local_scalar_dense":
            raise RecordingError("it waits for the device")
        out = func(*args, **kwargs)
        given = {_where(v) for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)}
        leaves = enumerate(tree_leaves(out))
        # A view, and what is changed in place, is where it is; the rest is written to where it is now.
        new = [(i, v.detach()) for i, v in leaves if isinstance(v, Tensor) and v.numel() and _where(v) not in given]
        if new or func._schema.is_mutable:
            self.ops.append((func, args, kwargs, new))
        return out


class Tape:
    """A :class:`ddpmkit.recording.Recorder`.

    Attributes:
        kind: as of CUDA graphs.
        caveat: nothing.
        believing: whether replays are taken without a proof.
        replays: how many there were.
        operations: how many each recording holds.
    """

    kind, caveat = "recorded", ""

    def __init__(self, *, believing: bool = False) -> None:
        self.believing, self.replays = believing, 0
        self.operations: list[int] = []

    def warm(self, run: Run) -> None:
        """Run it once."""
        run()

    def record(self, run: Run) -> Run:
        """Run it, and write down what it does.

        Raises:
            RecordingError: when it reads a number of a tensor.
        """
        with _Writer() as writer:
            run()
        self.operations.append(len(writer.ops))

        @torch.no_grad()
        def replay() -> None:
            self.replays += 1
            for func, args, kwargs, new in writer.ops:
                leaves = tree_leaves(func(*args, **kwargs))
                for i, place in new:
                    place.copy_(leaves[i])

        return replay

    def keep(self, tensor: Tensor) -> Tensor:
        """Copy it."""
        return tensor.detach().clone()

    def same(self, mine: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
        """Compare bits, unless it is believing."""
        return self.believing or same(mine, theirs)


def _where(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
