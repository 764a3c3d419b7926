"""Which numbers may stand in one column: those that were measured alike."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import pandas as pd

# Parts of a definition in which two cells may differ and still be compared, because they belong to the model and not to
# the measurement; the notes say where they do. Whatever else a definition says must agree: number of samples, reference
# and split, extractor, decoder, clipping, quantiser, precision.
OF_THE_MODEL = ("T", "variance")
_MODEL = re.compile(rf"\b({'|'.join(OF_THE_MODEL)})=(\S+)")

Meaning = tuple[str, str]


def meaning(definition: Any, n: Any) -> Meaning:
    """Return what must agree before two numbers of a metric are compared or averaged."""
    text = "" if pd.isna(definition) else " ".join(_MODEL.sub("", str(definition)).split())
    return text, "" if pd.isna(n) else f"{float(n):g}"


def meanings(frame: pd.DataFrame) -> dict[str, dict[str, Meaning | None]]:
    """Return metric -> cell -> what its numbers mean; None where one cell mixes meanings, which are never averaged."""
    rows = frame.loc[frame["value"].notna(), ["metric", "cell", "definition", "n"]].drop_duplicates()
    out: dict[str, dict[str, Meaning | None]] = {}
    columns = (rows[k].tolist() for k in ("metric", "cell", "definition", "n"))
    for metric, cell, definition, n in zip(*columns, strict=True):
        cells, found = out.setdefault(str(metric), {}), meaning(definition, n)
        cells[str(cell)] = found if cells.get(str(cell), found) == found else None
    return out


def comparable(known: dict[str, Meaning | None], cells: tuple[str, ...] | list[str]) -> bool:
    """Whether the numbers of these cells mean the same."""
    found: set[Hashable] = {known.get(c) for c in cells}
    return len(found) == 1 and None not in found


def unfair(frame: pd.DataFrame, known: dict[str, dict[str, Meaning | None]], base: str) -> list[str]:
    """Say which numbers were not averaged or not compared, and which comparisons go across a model's own settings."""
    notes = []
    for metric, cells in known.items():
        mixed = [c for c, found in cells.items() if found is None]
        if mixed:
            notes.append(f"{metric}: {', '.join(mixed)} left out, the numbers of one cell were measured differently.")
        other = [c for c, found in cells.items() if found is not None and found != cells.get(base)]
        if other and cells.get(base) is not None:
            notes.append(
                f"{metric}: not compared with {base}, measured differently: "
                + "; ".join(f"{c} ({_differing(cells[c], cells[base])})" for c in other)
                + "."
            )
    rows = frame.loc[frame["value"].notna(), ["metric", "definition"]].drop_duplicates().dropna()
    for metric in dict.fromkeys(rows["metric"].tolist()):
        told = [dict(_MODEL.findall(str(d))) for d in rows.loc[rows["metric"] == metric, "definition"]]
        for key in OF_THE_MODEL:
            values = sorted({t[key] for t in told if key in t}, key=lambda v: (len(v), v))
            if len(values) > 1:
                notes.append(f"{metric} is compared across {key}={' / '.join(values)}, which is part of the model.")
    return notes


def _differing(a: Meaning | None, b: Meaning | None) -> str:
    """The words of one meaning that the other does not have."""
    if a is None or b is None:
        return "mixed"
    words = [w for w in a[0].split() if w not in b[0].split()]
    return " ".join(words + ([f"n={a[1]}"] if a[1] != b[1] and f"n={a[1]}" not in a[0] else [])) or "undefined"
