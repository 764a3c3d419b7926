"""Numbers of trainings for which memory ran out, and which then saw fewer images at once than was asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

MARK = " micro-batch="  # at the end of a definition; so such a number means another thing than one without


def marked(rows: Iterable[Mapping[str, Any]], micro_batch: int) -> list[dict[str, Any]]:
    """Return rows of one training with so many images at once in the definition of each that has one."""
    return [
        {**row, "definition": f"{row['definition']}{MARK}{micro_batch}" if row["definition"] else ""} for row in rows
    ]


def fewer_notes(done: pd.DataFrame) -> list[str]:
    """Say of which cells memory ran out, for as many seeds as that was so."""
    of = done.loc[done["definition"].astype(str).str.contains(MARK, regex=False)]
    if of.empty:
        return []
    cells = of.groupby("cell", sort=False)["train_seed"].nunique()
    named = ", ".join(f"{cell} ({n} seed{'s' * (n != 1)})" for cell, n in cells.items())
    return [
        f"Memory ran out while these trained, and they went on with fewer images at once: {named}. Their last digits "
        "differ from what was asked, so they are not compared with the others."
    ]
