"""What a number means: how it was measured, as its definition says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

# Parts of a definition in which two cells may differ and still be compared, because they belong to the model and not to
# the measurement; the notes say where they do. Whatever else a definition says must agree: number of samples, reference
# and split, extractor, decoder, clipping, quantiser, precision.
OF_THE_MODEL = ("T", "variance")
MODEL_PART = re.compile(rf"\b({'|'.join(OF_THE_MODEL)})=(\S+)")

Meaning = tuple[str, str]


def meaning(definition: Any, n: Any) -> Meaning:
    """Return what must agree before two numbers of a metric are compared or averaged."""
    text = "" if pd.isna(definition) else " ".join(MODEL_PART.sub("", str(definition)).split())
    return text, "" if pd.isna(n) else f"{float(n):g}"


def meanings(frame: pd.DataFrame) -> dict[str, dict[str, Meaning | None]]:
    """Return metric -> cell -> what its numbers mean; None where one cell mixes meanings, which are never averaged."""
    rows = frame.loc[frame["value"].notna(), ["metric", "cell", "definition", "n"]].drop_duplicates()
    out: dict[str, dict[str, Meaning | None]] = {}
    columns = (rows[k].tolist() for k in ("metric", "cell", "definition", "n"))
    for metric, cell, definition, n in zip(*columns, strict=True):
        cells, meant = out.setdefault(str(metric), {}), meaning(definition, n)
        cells[str(cell)] = meant if cells.get(str(cell), meant) == meant else None
    return out


def comparable(known: Mapping[str, Meaning | None], cells: Sequence[str]) -> bool:
    """Whether the numbers of these cells mean the same."""
    meant = {known.get(c) for c in cells}
    return len(meant) == 1 and None not in meant
