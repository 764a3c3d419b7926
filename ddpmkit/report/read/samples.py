"""The samples of a study's cells, as its store holds them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from safetensors.numpy import load

from ddpmkit.report.isolated import isolated
from ddpmkit.report.read.axes import out_of
from ddpmkit.report.read.frames import Records
from ddpmkit.study.records import SampleRecord
from ddpmkit.study.store import Store

if TYPE_CHECKING:
    import numpy as np

    from ddpmkit.plugin.interfaces import Levels


@dataclass(frozen=True)
class CellSamples:
    """The samples of one cell.

    Attributes:
        label: the cell's name.
        slug: the same for a file's name.
        images: grey levels (N, C, H, W).
        levels: K, the number of grey levels.
        train_seed: the seed of the network that they come from.
        sample_seed: the seed of their noise.
        usual: whether these are the seeds that most cells are shown at, so that the noise is theirs.
        labels: the class of each, int64 (N,); None where the network was trained without labels.
    """

    label: str
    slug: str
    images: Levels
    levels: int
    train_seed: int
    sample_seed: int
    usual: bool
    labels: np.ndarray[Any, np.dtype[np.int64]] | None = None

    @property
    def seeds(self) -> str:
        """Both seeds, in words."""
        return f"train seed {self.train_seed}, sample seed {self.sample_seed}"


def samples_of(records: Records) -> list[CellSamples]:
    """Return the samples of every cell that has some; what is damaged is said and left out.

    The same train and sample seed give every cell the same noise, so cells are shown at the seeds that most have.
    """
    done: dict[str, dict[tuple[int, int], tuple[Store, str, int]]] = {}
    for r in records.plan["results"]:
        store = Store(out_of(records, r))
        if r["sample"] and (drawn := store.record(SampleRecord, r["sample"])):
            done.setdefault(r["cell"], {})[r["train_seed"], r["sample_seed"]] = (store, r["sample"], drawn.levels)
    votes = Counter(seeds for by_seeds in done.values() for seeds in by_seeds)
    usual = max(votes, key=lambda s: votes[s]) if votes else None
    out = []
    for cell in records.plan["cells"]:
        by_seeds = done.get(cell["label"])
        if not by_seeds:
            continue
        seeds = usual if usual in by_seeds else next(iter(by_seeds))
        store, id, levels = by_seeds[seeds]
        with isolated(f"the samples of {cell['label']}"):
            blob = (store.folder("sample", id) / "out" / "samples.safetensors").read_bytes()
            arrays = load(blob)
            slug = re.sub(r"[^A-Za-z0-9._-]+", "-", cell["slug"])  # it becomes a file's name
            found = CellSamples(cell["label"], slug, arrays["levels"], levels, *seeds, usual=seeds == usual)
            out.append(replace(found, labels=arrays.get("labels")))
    return out
