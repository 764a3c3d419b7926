"""A training that runs out of memory goes on with fewer images at once; its gradients are added up all the same.

The sums are taken in another order then, and dropout falls elsewhere, so the record says it and a report keeps such
numbers apart.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ddpmkit import files

if TYPE_CHECKING:
    from pathlib import Path

    from ddpmkit.study.work import Work

CPU = "DefaultCPUAllocator: can't allocate memory"  # torch has no type of its own for it


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error, or what it was made of, says that memory ran out."""
    import torch

    return any(isinstance(e, (torch.OutOfMemoryError, MemoryError)) or CPU in str(e) for e in _behind(err))


def _behind(err: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = err
    while seen is not None:
        yield seen
        seen = seen.__cause__


def micro_batch_of(w: Work, asked: int) -> int:
    """Return how many images a training sees at once: as many as asked, or fewer where it ran out of memory before."""
    found = (files.read_sealed(told(w)) or {}).get("micro_batch")
    return found if isinstance(found, int) and 1 <= found < asked else asked


def told(w: Work) -> Path:
    """Where a training keeps how it runs."""
    return w.folder / "network.json"


def release() -> None:
    """Give back what nobody holds any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
